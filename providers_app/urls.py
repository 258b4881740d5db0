from django.urls import path

from providers_app import views

urlpatterns = [
    path("providers/", views.providers, name="providers"),
    path("providers/new/", views.add, name="provider-new"),
    path("providers/menu/", views.menu, name="providers-menu"),
    path("providers/limits/", views.limits, name="providers-limits"),
    path("providers/test/", views.test, name="provider-test"),
    path("providers/<int:pk>/edit/", views.change, name="provider-edit"),
    path("providers/<int:pk>/check/", views.check, name="provider-check"),
    path("providers/<int:pk>/enable/", views.enable, name="provider-enable"),
    path("providers/<int:pk>/disable/", views.disable, name="provider-disable"),
    path("providers/<int:pk>/delete/", views.delete, name="provider-delete"),
]
