// SPDX-License-Identifier: Apache-2.0
// The keyed hash, the HTTP/1 parser and an LMDB read.
#include <benchmark/benchmark.h>

#include <filesystem>
#include <string>

#include "core/crypto.h"
#include "core/hash.h"
#include "core/http1.h"
#include "core/lmdb.h"

namespace tidegate {
namespace {

constexpr HashKey kKey{1, 2};

void keyed_hash_of_a_flow(benchmark::State& state) {
  uint64_t word = 1;
  for (auto _ : state) {
    word = siphash13_words<2>(kKey, {word, 7});
    benchmark::DoNotOptimize(word);
  }
}
BENCHMARK(keyed_hash_of_a_flow);

void keyed_hash_of_text(benchmark::State& state) {
  const std::string text(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) benchmark::DoNotOptimize(siphash13(kKey, text));
}
BENCHMARK(keyed_hash_of_text)->Arg(16)->Arg(64)->Arg(256);

constexpr std::string_view kCurl =
    "GET /static/site.css?v=3 HTTP/1.1\r\nHost: www.example.test\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
constexpr std::string_view kBrowser =
    "GET /articles/2026/a-long-path/index.html HTTP/1.1\r\nHost: www.example.test\r\nConnection: keep-alive\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    "Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\nCache-Control: max-age=0\r\n"
    "Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nUpgrade-Insecure-Requests: 1\r\n"
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

void parse_request(benchmark::State& state, std::string_view request) {
  http1::Head head;
  for (auto _ : state) {
    size_t scanned = 0;
    const http1::ParseResult result = http1::parse_request(request, {}, scanned, head);
    if (result.status != http1::Status::complete) state.SkipWithError("refused");
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(request.size()));
}
BENCHMARK_CAPTURE(parse_request, of_curl, kCurl);
BENCHMARK_CAPTURE(parse_request, of_a_browser, kBrowser);

void lmdb_get(benchmark::State& state) {
  const auto entries = static_cast<uint64_t>(state.range(0));
  const auto directory = std::filesystem::temp_directory_path() / ("tidegate-micro-" + hex_encode(random_bytes(8)));
  std::filesystem::create_directories(directory);
  {
    lmdb::Env env = *lmdb::Env::open(directory, {});
    lmdb::Txn writing = *lmdb::Txn::begin(env, lmdb::Access::write);
    const MDB_dbi db = *writing.open_db("values", MDB_CREATE);
    bool written = true;
    for (uint64_t i = 0; i < entries; ++i) {
      written = static_cast<bool>(writing.put(db, lmdb::be64(mix64(i)), std::string(100, 'v'))) && written;
    }
    if (!writing.commit() || !written) state.SkipWithError("not written");
    lmdb::Txn reading = *lmdb::Txn::begin(env, lmdb::Access::read);
    reading.reset();
    uint64_t next = 0;
    for (auto _ : state) {
      if (!reading.renew()) state.SkipWithError("no transaction");
      benchmark::DoNotOptimize(reading.get(db, lmdb::be64(mix64(next++ % entries))));
      reading.reset();
    }
  }
  std::filesystem::remove_all(directory);
}
BENCHMARK(lmdb_get)->Arg(1'000)->Arg(100'000);

}  // namespace
}  // namespace tidegate
