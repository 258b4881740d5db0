"""The image transfer engine: one source is read once, many hosts get what they lack, every byte is proven.

No Django, no drivers: hosts come through the protocols in :mod:`.ports`. Runs as its own process,
``python -m templates_app.transfer``; :mod:`.process` is the parent's side of it.
"""
