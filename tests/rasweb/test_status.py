import pytest
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_anybody_may_ask_whether_it_serves(client, path):
    response = client.get(path)
    assert (response.status_code, response.content) == (200, b"ok\n")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_silent_database_is_said(client, path):
    def gone(execute, sql, params, many, context):
        raise OperationalError("gone")

    with connection.execute_wrapper(gone):
        response = client.get(path)
    assert (response.status_code, response.content) == (503, b"the database does not answer\n")


def test_a_database_of_another_release_is_alive_but_not_ready(client):
    MigrationRecorder.Migration.objects.filter(app="templates_app").delete()
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").content == b"the database needs manage.py migrate\n"
