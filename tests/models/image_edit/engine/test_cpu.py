import subprocess
import sys
from pathlib import Path

from image_edit.engine import cpu

# As in Triton's stub, threads have made arenas of their own before the process is tuned.
PROBE = """
import os, resource, sys, threading
import numpy as np

def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    def fill():
        [np.ones(2**20) for _ in range(20)]  # 160 MiB, more than two heaps of an arena
    fill()  # the first use has to fault its pages in
    before = faults()
    for _ in range(3):
        fill()
    print(faults() - before)

in_a_thread(lambda: np.ones(2**10))
if sys.argv[1] == "tuned":
    from image_edit.engine.cpu import tune_for_cpu
    tune_for_cpu()
    assert int(os.environ["GOMP_SPINCOUNT"]) < 300_000  # libgomp's default
in_a_thread(work)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, how],
        env={"PYTHONPATH": str(Path(cpu.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_a_thread_s_freed_memory_is_kept() -> None:
    assert faults("tuned") < faults("as it is") / 10
