import threading

from rasweb import keys


def test_processes_that_start_at_once_agree_on_one_key(tmp_path):
    path, found, together = tmp_path / "key", [], threading.Barrier(8)

    def start() -> None:
        together.wait()
        found.append(keys.kept(path, keys.new_secret))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {path.read_text().strip()}
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
