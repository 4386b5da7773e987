#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The pages link and show only what exists, and docs/site.py finds each kind of mistake in a page."""

import contextlib
import importlib.util
import io
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "docs" / "site.py"
spec = importlib.util.spec_from_file_location("site_of_pages", SOURCE)
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)


def link_faults(text, page="docs/x.md"):
    texts = {page: text, "LIMITS.md": "# Limits\n\n## A `b`, c\n\n## Twice\n\n## Twice\n"}
    return [fault for fault in site.bad_links(texts)]


class Pages(unittest.TestCase):
    def test_have_no_fault(self):
        self.assertEqual(site.faults(), [])

    def test_lead_to_pages_and_headings_that_exist(self):
        for good in ("[a](../LIMITS.md)", "[a](../LIMITS.md#a-b-c)", "[a](../LIMITS.md#twice-1)", "[a](https://example.com/#x)", "# My own\n\n[a](#my-own)", "[a](../LICENSE)",
                     "`[a](nowhere.md)`", "    [a](nowhere.md)"):  # fmt: skip
            self.assertEqual(link_faults(good), [], good)
        for bad in ("[a](LIMITS.md)", "[a](../LIMITS.md#nothing)", "[a](#nothing)", "[a](../LIMITS.md#twice-2)", "[a](../../../../etc/passwd)"):
            self.assertEqual(len(link_faults(bad)), 1, bad)

    def test_show_commands_and_options_that_exist(self):
        faults = lambda text: list(site.bad_commands({"docs/x.md": text}))
        for good in ("    tidegate apply edge.yaml --wait", "`tidegate drain backend a/b --down`", "    tidegate --api /x --output json undrain site a --wait",
                     "    ./run docs", "    tidegate-l7 --config edge.yaml --metrics 127.0.0.1:9000", "`tidegate.service`", "    tidegate version"):  # fmt: skip
            self.assertEqual(faults(good), [], good)
        for bad in ("    tidegate aply edge.yaml", "`tidegate apply edge.yaml --waits`", "    tidegate undrain site a --note b", "    tidegate --apis /x status", "    ./run dosc",
                    "    tidegate-l7 --confg edge.yaml"):  # fmt: skip
            self.assertEqual(len(faults(bad)), 1, bad)

    def test_name_metrics_that_exist(self):
        faults = lambda text: list(site.bad_metrics({"docs/x.md": text}))
        for good in ("`tidegate_l7_requests_total{route=}`", "`tidegate_dns_config_behind`", "`tidegate_l4_port_missed_packets_total`"):
            self.assertEqual(faults(good), [], good)
        for bad in ("`tidegate_l7_request_total`", "`tidegate_l7_port_missed_packets_total`", "`tidegate_x`"):
            self.assertEqual(len(faults(bad)), 1, bad)

    def test_have_no_long_lines_of_text(self):
        faults = lambda text: list(site.long_lines({"docs/x.md": text}))
        word = "x" * 115
        for good in (f"- {word} y", f"| {word} | a table |", f"# {word} a heading", f"    {word} code by its place", f"```\n{word} code of a fence\n```", word + "é" * 5):
            self.assertEqual(faults(good), [], good)
        for bad in (f"{word} and so on", f"short\n  {word} below an item"):
            self.assertEqual(len(faults(bad)), 1, bad)

    def test_take_no_option_for_a_folder(self):
        for arguments in (["--chekc"], ["--help"], [], ["--check", "out"]):
            with self.assertRaises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as said:
                site.main(arguments)
            self.assertEqual(ended.exception.code, 2)
            self.assertIn("site.py OUT", said.getvalue())

    def test_are_made_from_what_exists(self):
        commands = site.commands()
        self.assertEqual({option for option, _ in commands["undrain"][2]}, {"--wait"})
        self.assertIn("--down", {option for option, _ in commands["drain"][2]})
        self.assertIn(("/v1/config", "PUT"), {row[:2] for row in site.api()})
        self.assertNotIn("\n### ", site.upgrade_notes())
        self.assertIn("](../", site.upgrade_notes())


if __name__ == "__main__":
    unittest.main()
