"""Name this installation: what it makes on hosts is marked with it."""

from django.db import migrations


def name_installation(apps, schema_editor):
    installation = apps.get_model("providers_app", "Installation")
    if not installation.objects.exists():
        installation.objects.create()


class Migration(migrations.Migration):
    dependencies = [("providers_app", "0001_initial")]
    operations = [migrations.RunPython(name_installation, migrations.RunPython.noop, elidable=False)]
