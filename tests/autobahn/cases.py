"""Runs the cases against a server and prints a line of JSON for each verdict: cases.py URL [CASE...].

A case is named or, with `*`, all that begin so; after `!` it is left out. None named are all.
"""

import asyncio
import json
import os
import sys

import kosoku


async def main():
    url, *cases = sys.argv[1:]
    named = [case for case in cases if not case.startswith("!")]
    left_out = [case[1:] for case in cases if case.startswith("!")]
    try:
        results = await kosoku.run_fuzzingclient(url, named or None, left_out, concurrency=4)
    except kosoku.FailureError as failure:
        results = failure.results
    for result in results:
        verdict = {
            "case": result.case_id,
            "passed": result.passed,
            "behavior": result.behavior.value,
            "close": result.behavior_close.value,
        }
        print(json.dumps(verdict))


asyncio.run(main())
# The runner's own threads may abort the process while Python tidies up: end at once.
sys.stdout.flush()
os._exit(0)
