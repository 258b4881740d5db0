"""Commands in this process, on hosts that are folders."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import call_command

from tests.templates_app.conftest import drain, hosts, ordered, shelf, template, three  # noqa: F401  # fixtures


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def refused(self) -> str:
        """The code of a refusal that was said in one sentence, as JSON too."""
        assert self.status == 1
        assert len(self.err.strip().splitlines()) == 1, self.err
        assert self.err.strip().endswith("."), self.err
        error = self.json["error"]
        assert set(error) == {"code", "text", "action"}
        assert self.err.strip() == f"{error['text']} {error['action']}".strip()
        return str(error["code"])


Order = Callable[..., Answer]


@pytest.fixture
def order(capsys: pytest.CaptureFixture[str]) -> Order:
    def run(*words: object) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        capsys.readouterr()
        try:
            call_command(*(str(word) for word in words), stdout=out, stderr=err)
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        return Answer(status, out.getvalue(), err.getvalue() + capsys.readouterr().err)

    return run
