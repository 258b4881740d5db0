from django.contrib.auth.views import LogoutView
from django.urls import include, path

from rasweb import status, views
from rasweb.admin import site

urlpatterns = [
    path("healthz", status.healthz, name="healthz"),
    path("readyz", status.readyz, name="readyz"),
    path("login/", views.Login.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("setup/<str:token>/", views.setup, name="setup"),
    path("shortcuts/", views.shortcuts, name="shortcuts"),
    path("admin/", site.urls),
    path("", include("providers_app.urls")),
    path("", include("templates_app.urls")),
]
