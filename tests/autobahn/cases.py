"""Runs the cases against a server and prints a line of JSON for each verdict: cases.py URL [EXCLUDED...]."""

import asyncio
import json
import sys

import kosoku


async def main():
    url, *excluded = sys.argv[1:]
    try:
        results = await kosoku.run_fuzzingclient(url, None, excluded, concurrency=4)
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
