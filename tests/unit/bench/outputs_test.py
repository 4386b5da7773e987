#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks read from the output of their generators, in the forms that those really print."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))
from outputs import dnsperf_sample, h2load_sample, wrk_sample  # noqa: E402

WRK = """Running 1s test @ http://127.0.0.1:7080/x
  1 threads and 32 connections
  Latency Distribution
     50%  606.00us
     75%    0.90ms
     90%    1.10ms
     99%    1.34ms
  38042 requests in 1.10s, 49.10MB read
Requests/sec:  34583.6
"""
H2LOAD = """Main benchmark duration is over for thread #0. Stopping all clients.
finished in {took}, 16353.10 req/s, 1.56GB/s
requests: 16355 total, 16435 started, 16355 done, 16355 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 16355 2xx, 0 3xx, 0 4xx, 0 5xx
"""
LOG = "1\t200\t4613\n2\t200\t1000\n3\t200\t7254\n"
DNSPERF = """  Queries completed:    100000 (100.00%)
  Run time (s):         1.250000
  Average Latency (s):  0.001500 (min 0.000100, max 0.020000)
"""


class Outputs(unittest.TestCase):
    def test_wrk(self):
        sample = wrk_sample(WRK, 0.5)
        self.assertEqual((sample.operations, sample.seconds, sample.p50_us, sample.p99_us), (38042, 1.10, 606, 1340))

    def test_wrk_failures_are_named(self):
        with self.assertRaisesRegex(ValueError, "Non-2xx or 3xx responses: 7"):
            wrk_sample(WRK + "  Non-2xx or 3xx responses: 7\n", 0.5)

    def test_h2load_speaks_in_seconds(self):
        sample = h2load_sample(H2LOAD.format(took="1.00s"), LOG, 0.5)
        self.assertEqual((sample.operations, sample.seconds, sample.p50_us, sample.p99_us), (16355, 1.0, 4613, 7254))

    def test_h2load_speaks_in_milliseconds_of_less_than_one(self):
        self.assertAlmostEqual(h2load_sample(H2LOAD.format(took="999.87ms"), LOG, 0.5).seconds, 0.99987)

    def test_h2load_failures_are_named(self):
        with self.assertRaisesRegex(ValueError, "16355 total"):
            h2load_sample(H2LOAD.format(took="1.00s").replace("0 failed", "3 failed"), LOG, 0.5)

    def test_dnsperf(self):
        sample = dnsperf_sample(DNSPERF, 0.5)
        self.assertEqual((sample.operations, sample.seconds, sample.p50_us, sample.p99_us), (100_000, 1.25, 1500, 20_000))

    def test_what_was_not_found_is_named(self):
        with self.assertRaisesRegex(ValueError, "requests in.*wrk: unable to connect"):
            wrk_sample("wrk: unable to connect", 0.5)


if __name__ == "__main__":
    unittest.main(verbosity=0)
