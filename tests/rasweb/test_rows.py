"""Questions that are asked again and again."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Q, QuerySet
from django.test.utils import CaptureQueriesContext

from rasweb.rows import standing

pytestmark = pytest.mark.django_db


def test_a_standing_question_is_answered_by_what_is_there_now() -> None:
    written = []

    @standing
    def left() -> QuerySet[User]:
        written.append(1)
        return User.objects.filter(is_active=False)

    assert (left.pks(), list(left())) == ([], [])
    ada = User.objects.create(username="ada", is_active=False)
    User.objects.create(username="bob")
    assert (left.pks(), list(left())) == ([ada.pk], [ada])
    User.objects.update(is_active=True)
    asked = len(written)
    with CaptureQueriesContext(connection) as queries:
        assert list(left()) == []
    assert (len(queries), len(written)) == (1, asked)


def test_the_times_of_a_standing_question_are_those_of_each_call() -> None:
    @standing
    def joined(after: datetime, before: datetime) -> QuerySet[User]:
        return User.objects.filter(~Q(date_joined__range=(after, before)))

    ada = User.objects.create(username="ada")
    hour = timedelta(hours=1)
    now = ada.date_joined
    assert joined.pks(after=now + hour, before=now + 2 * hour) == [ada.pk]
    assert joined.pks(after=now - hour, before=now + hour) == []
    assert list(joined(after=now - 2 * hour, before=now - hour)) == [ada]
