import pytest

from rasweb import assets


@pytest.fixture
def source(settings, tmp_path):
    settings.DEBUG = False
    settings.DATA_DIR = tmp_path
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STATICFILES_DIRS = [tmp_path / "source"]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    file = tmp_path / "source" / "own.css"
    file.parent.mkdir()
    file.write_text("body {}")
    return file


def test_static_files_are_gathered_once_and_again_when_one_changes(source, settings):
    assert assets.collect()
    assert (settings.STATIC_ROOT / "own.css").exists()
    assert not assets.collect()
    source.write_text("body { color: red }")
    assert assets.collect()


def test_debug_mode_serves_the_sources(source, settings):
    settings.DEBUG = True
    assert not assets.collect()
    assert not settings.STATIC_ROOT.exists()
