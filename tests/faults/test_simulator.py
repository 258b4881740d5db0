"""Hypervisors that hang, cut the line, corrupt, fill up, refuse or crawl, all at once beside one that is well."""

from __future__ import annotations

import pytest

from tests.faults.bench import MIB, Bench

pytestmark = pytest.mark.product

HEALTHY = ("one", "two", "three")
FAULTS = {
    "hangs": "hang=write",
    "cuts": f"cut={4 * MIB}",
    "corrupts": f"corrupt={2 * MIB}",
    "full": f"no_space={4 * MIB}",
    "refuses": "refuse=stage",
    "slow": f"slow={6 * MIB}",
}
CODES = {"cuts": "UNREACHABLE", "corrupts": "CHECKSUM_MISMATCH", "full": "NO_SPACE", "refuses": "REFUSED"}


def test_each_fault_has_its_word_and_code_and_all_converge_when_it_is_over(bench: Bench) -> None:
    bench.product.env["RASWEB_RETRY_DELAYS"] = "1,1,1"
    bench.product.start()
    bench.add("source", "well")
    bench.add(*FAULTS, kind="simulator")
    bench.vm("source")
    for host, words in FAULTS.items():
        bench.faults(host, words)
    everyone = [word for host in ("well", *FAULTS) for word in ("--target", host)]
    bench.run("template", "create", "win11", "--source", "source:golden", "--concurrent", "8", *everyone)

    bench.until(lambda: bench.target("hangs")["error_code"] == "STALLED", "the stall")
    assert bench.words("win11")["hangs"][1:] == ("Distributing", "STALLED")
    bench.until_ok("well", "slow")
    bench.until_phase("failed", *CODES)
    words = bench.words("win11")
    assert words["well"] == words["slow"] == ("Ready", "OK", None)
    assert {host: words[host][1:] for host in CODES} == {
        host: ("Failed to distribute", code) for host, code in CODES.items()
    }

    for host in FAULTS:
        bench.faults(host, "")
    bench.run("provider", "check", *FAULTS)
    bench.run("template", "retry", "win11")
    bench.until_ok(*FAULTS)
    assert bench.status("win11")["distribution"] == "OK"
    assert bench.run("template", "verify", "win11")[0]["ok"]
    bench.check()


def test_a_host_that_crashes_the_copy_process_fails_alone(bench: Bench) -> None:
    bench.product.env["RASWEB_RETRY_DELAYS"] = "1,1"
    bench.product.start()
    bench.add("source")
    bench.add(*HEALTHY, bandwidth=4 * MIB)
    bench.add("poison", kind="simulator")
    bench.vm("source")
    bench.faults("poison", "crash=write")
    everyone = [word for host in (*HEALTHY, "poison") for word in ("--target", host)]
    bench.run("template", "create", "win11", "--source", "source:golden", "--concurrent", "8", *everyone)
    bench.until_ok(*HEALTHY)
    bench.until_phase("failed", "poison")
    assert bench.words("win11")["poison"][1:] == ("Failed to distribute", "ENGINE_LOST")

    bench.faults("poison", "")
    bench.run("template", "retry", "win11")
    bench.until_ok("poison")
    bench.check()
