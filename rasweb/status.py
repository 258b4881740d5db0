"""What load balancers and supervisors ask: does it live, may it get work."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse


@login_not_required
def healthz(request: HttpRequest) -> HttpResponse:
    """200 while pages can be served: the database answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return _answer("the database does not answer")
    return _answer()


@login_not_required
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when the database also has the shape this release needs."""
    try:
        if unapplied_migrations():
            return _answer("the database needs manage.py migrate")
    except DatabaseError:
        return _answer("the database does not answer")
    return _answer()


def unapplied_migrations() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _answer(fault: str = "") -> HttpResponse:
    status = 503 if fault else 200
    text = f"{fault or 'ok'}\n"
    return HttpResponse(text, content_type="text/plain", status=status, headers={"Cache-Control": "no-store"})
