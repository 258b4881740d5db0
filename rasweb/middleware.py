"""What every response carries, and the answer to a request that the database did not carry out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string

from rasweb.answers import answer
from rasweb.refusals import without_database

log = logging.getLogger(__name__)

View = Callable[[HttpRequest], HttpResponseBase]


def no_store(get_response: View) -> View:
    """Keep pages of a signed-in user out of every cache, so that Back after signing out shows nothing."""

    def respond(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if request.user.is_authenticated and not response.has_header("Cache-Control"):
            response["Cache-Control"] = "no-store"
        return response

    return respond


class Busy:
    """A lock that is held too long, or a database that is away, is no fault of the page: nothing was done, try again.

    A click gets the sentence as it gets every other no. What a page reads by itself is answered with a status, which
    complains once, however often it is read.
    """

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, OperationalError):
            return None
        log.warning("%s %s: the database did not do it", request.method, request.path, exc_info=error)
        refusal = without_database(error)
        if request.headers.get("HX-Request") and request.method != "GET":
            return answer(said=str(refusal), good=False)
        return HttpResponse(render_to_string("503.html", {"refusal": refusal}), status=503)
