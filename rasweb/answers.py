"""Answers to clicks: the fresh parts and a sentence, always with status 200, since an ordinary no is no error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django_htmx.http import HttpResponseClientRedirect, trigger_client_event

from rasweb.refusals import Refusal

Parts = Callable[[], str]


def acted(verb: Callable[[], object], parts: Parts, said: str) -> HttpResponse:
    """Carry out an order of one click. Whatever came of it: the parts as they are now, and a sentence."""
    try:
        verb()
    except Refusal as refusal:
        return answer(parts(), str(refusal), good=False)
    return answer(parts(), said)


def answer(parts: str = "", said: str = "", *, good: bool = True, close: bool = False) -> HttpResponse:
    """Parts for the page and a toast; ``close`` shuts the dialog that asked."""
    response = HttpResponse(parts + (toast(said, good) if said else ""), headers={"X-Parts": "1"})
    response["HX-Reswap"] = "none"
    return trigger_client_event(response, "dialog:close") if close else response


def toast(text: str, good: bool) -> str:
    html = render_to_string("rasweb/toast.html", {"text": text, "good": good})
    return f'<div hx-swap-oob="beforeend:#toasts">{html}</div>'


def dialog(request: HttpRequest, part: str, /, **context: Any) -> HttpResponse:
    """A dialog for the page that asked; opened by its address alone it is a page of its own."""
    if request.headers.get("HX-Request"):
        return render(request, part, context)
    return render(request, "rasweb/dialog_page.html", {**context, "dialog": part})


def go(request: HttpRequest, to: str, *args: Any) -> HttpResponse:
    """To another page, whoever asked."""
    response = redirect(to, *args)
    if request.headers.get("HX-Request"):
        return HttpResponseClientRedirect(response.url)
    return response
