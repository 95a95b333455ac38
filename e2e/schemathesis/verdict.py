"""One line of what a run of Schemathesis came to, and the faults that it does not look for itself: an operation that
never did what it is for says nothing about its answers.

Usage: verdict.py REPORT.json REPORT.ndjson
"""

import collections
import json
import sys


def answers(path):
    """How many answers had each status; None for what was not answered."""
    statuses = collections.Counter()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            finished = json.loads(line).get("ScenarioFinished")
            if finished is None:
                continue
            for interaction in finished.get("recorder", {}).get("interactions", {}).values():
                response = interaction.get("response")
                statuses[response["status_code"] if response else None] += 1
    return statuses


def main():
    report_path, events_path = sys.argv[1:]
    with open(report_path, encoding="utf-8") as file:
        report = json.load(file)
    statuses = answers(events_path)
    of_class = lambda first: sum(n for status, n in statuses.items() if status and status // 100 == first)
    operations = report["operations"]
    accepted = {
        operation: sum(phase["accepted"] for phase in phases.values())
        for operation, phases in report["valid_rates"].items()
    }
    never = sorted(operation for operation, count in accepted.items() if count == 0)
    found = collections.Counter()
    for failure in report["failures"]:
        found[failure["type"]] += failure["count"]

    wrong = []
    if report["exit_code"] != 0 or not report["complete"]:
        wrong.append(f"it ended with {report['exit_code']}, {report['stop_reason']}")
    if operations["tested"] != operations["selected"] or operations["errored"]:
        wrong.append(f"not all operations were tried: {operations}")
    if never:
        wrong.append(f"never answered with success: {', '.join(never)}")
    if len(accepted) != operations["selected"]:
        wrong.append(f"only {len(accepted)} of {operations['selected']} operations were asked for what they take")
    if of_class(5) or statuses[None]:
        wrong.append("there are answers that are no answers")
    for complaint in wrong:
        print(f"schemathesis: {complaint}", file=sys.stderr)
    counts = {
        "operations": operations["tested"],
        "requests": statuses.total(),
        "success": of_class(2) + of_class(3),
        "refused": of_class(4),
        "server_errors": of_class(5),
        "unanswered": statuses[None],
        "failures": sum(found.values()),
        **found,
        "seed": report["seed"],
        "seconds": round(report["running_time"]),
    }
    line = ", ".join(f"{name}={count}" for name, count in counts.items())
    print(f"schemathesis {'found' if wrong else 'ok'}: {line}")
    return 1 if wrong else 0


sys.exit(main())
