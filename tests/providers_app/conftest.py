from tests.templates_app.conftest import hosts

__all__ = ["hosts"]
