"""Owns the process that tests fork others from: it has imported what takes those a second each."""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.durability.victim", "frontend.cli.main", "frontend.cli.app"])
