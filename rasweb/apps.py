from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class Rasweb(AppConfig):
    name = "rasweb"

    def ready(self) -> None:
        from rasweb.access import make_groups

        post_migrate.connect(make_groups, sender=apps.get_app_config("auth"))
