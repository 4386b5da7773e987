// SPDX-License-Identifier: Apache-2.0
// The probe of type command with real programs: what it passes on, what it limits, and what it leaves behind.

#include "control/health/probe_command.h"
#include "conf/model/probe.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>

#include "control/limits.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::probe_command_test {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string content(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

class ProbeCommand : public ::testing::Test {
 protected:
  ProbeCommand() {
    ::chmod((directory / "").c_str(), 0755);
    std::filesystem::create_directory(programs);
    ::chmod(programs.c_str(), 0755);
    std::filesystem::create_directory(told);
    ::chmod(told.c_str(), 0777);  // only in tests: the programs run as another user
    auto allowed = ProbeCommands::allow(loop, programs, "nobody");
    EXPECT_TRUE(allowed) << (allowed ? "" : allowed.error().message);
    if (allowed) commands = *allowed;
  }
  void install(const std::string& name, const std::string& script, mode_t mode = 0755) {
    std::ofstream(programs + "/" + name) << "#!/bin/sh\n" << script << "\n";
    ::chmod((programs + "/" + name).c_str(), mode);
  }
  ProbeTarget target(std::vector<std::string> command, uint64_t timeout_ms = kPatienceMs) const {
    ProbeTarget target;
    target.type = ProbeType::command;
    target.endpoint = *Endpoint::parse("192.0.2.7:5432");
    target.backend = "db1";
    target.command = std::move(command);
    target.commands = commands;
    target.timeout_ms = timeout_ms;
    return target;
  }
  ProbeResult probe(const ProbeTarget& wanted) {
    std::optional<ProbeResult> result;
    const auto attempt = start_probe(loop, wanted, [&](ProbeResult given) { result = std::move(given); });
    EXPECT_TRUE(pump(loop, [&] { return result.has_value(); }));
    return result.value_or(ProbeResult{});
  }
  bool all_have_ended() {
    return pump(loop, [&] { return commands->running() == 0; });
  }

  TemporaryDirectory directory;
  const std::string programs = directory / "programs", told = directory / "told";
  EventLoop loop;
  std::shared_ptr<ProbeCommands> commands;
};

TEST_F(ProbeCommand, TheExitStatusDecidesAndTheFirstLineIsTheReason) {
  install("ok", "exit 0");
  install("bad", "printf 'CRITICAL: \\033[1mno room\\n'; echo more; exit 2");
  install("killed", "kill -TERM $$");
  EXPECT_TRUE(probe(target({"ok"})).success);
  const ProbeResult bad = probe(target({"bad"}));
  EXPECT_EQ(bad.reason, "exit status 2: CRITICAL: ?[1mno room");
  EXPECT_EQ(bad.cause, ProbeCause::answer);
  EXPECT_TRUE(bad.looked);
  EXPECT_EQ(probe(target({"killed"})).reason, "ended by signal 15");
}

TEST_F(ProbeCommand, ArgumentsStandForTheBackendAndNoShellReadsThem) {
  install("tell", "for a in \"$@\"; do echo \"<$a>\"; done > " + told + "/arguments; env | sort > " + told + "/env");
  EXPECT_TRUE(probe(target({"tell", "-H", "{address}", "--port={port}", "{name}", "$(id); {other}", ""})).success);
  EXPECT_EQ(content(told + "/arguments"), "<-H>\n<192.0.2.7>\n<--port=5432>\n<db1>\n<$(id); {other}>\n<>\n");
  const std::string environment = content(told + "/env");
  EXPECT_THAT(environment, HasSubstr("TIDEGATE_ADDRESS=192.0.2.7\n"));
  EXPECT_EQ(environment.find("ASAN_OPTIONS"), std::string::npos) << "nothing of control's own";
}

TEST_F(ProbeCommand, ItRunsWithoutRightsAndWithoutOurDescriptors) {
  install("look", "id -u > " + told + "/user; ls /proc/self/fd > " + told +
                      "/files; grep -E 'NoNewPrivs|CapEff' /proc/self/status > " + told + "/rights");
  ASSERT_TRUE(probe(target({"look"})).success);
  if (::geteuid() == 0) {
    EXPECT_EQ(content(told + "/user"), "65534\n");
  }
  EXPECT_EQ(content(told + "/files"), "0\n1\n2\n3\n") << "3 is the listing's own";
  EXPECT_THAT(content(told + "/rights"), HasSubstr("CapEff:\t0000000000000000"));
  EXPECT_THAT(content(told + "/rights"), HasSubstr("NoNewPrivs:\t1"));
}

TEST_F(ProbeCommand, AfterTheTimeoutNothingOfItRunsAnyMore) {
  // Its child keeps the output open and would outlive it. The pipe shows when that child is gone.
  ASSERT_EQ(::mkfifo((told + "/alive").c_str(), 0666), 0);
  ::chmod((told + "/alive").c_str(), 0666);
  const UniqueFd alive(::open((told + "/alive").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  install("hang", "(exec > " + told + "/alive; echo here; sleep 1000) & sleep 1000");
  char text[16];
  ssize_t got = 0;
  for (uint64_t timeout_ms = 300; got == 0 && timeout_ms < kPatienceMs;
       timeout_ms *= 2) {  // long enough for the program to begin
    const ProbeResult result = probe(target({"hang"}, timeout_ms));
    EXPECT_EQ(result.reason, "the command was not over after " + std::to_string(timeout_ms) + " ms");
    EXPECT_EQ(result.cause, ProbeCause::timeout);
    ASSERT_TRUE(all_have_ended());
    got = ::read(alive.get(), text, sizeof text);
  }
  EXPECT_EQ(std::string(text, static_cast<size_t>(got)), "here\n");
  EXPECT_TRUE(pump(loop, [&] { return ::read(alive.get(), text, sizeof text) == 0; })) << "its end is closed";
}

TEST_F(ProbeCommand, WhatACommandLeavesBehindIsKilledWithIt) {
  ASSERT_EQ(::mkfifo((told + "/alive").c_str(), 0666), 0);
  ::chmod((told + "/alive").c_str(), 0666);
  const UniqueFd alive(::open((told + "/alive").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  install("fork", "exec 3> " + told + "/alive; echo here >&3; sleep 1000 & exit 0");
  EXPECT_TRUE(probe(target({"fork"})).success);
  char text[16];
  EXPECT_EQ(::read(alive.get(), text, sizeof text), 5);
  EXPECT_TRUE(pump(loop, [&] { return ::read(alive.get(), text, sizeof text) == 0; }));
}

TEST_F(ProbeCommand, ATalkativeCommandEndsAndItsOutputHasABound) {
  install("talk",
          "i=0; while [ $i -lt 20000 ]; do echo 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; i=$((i+1)); done; exit 1");
  EXPECT_EQ(probe(target({"talk"})).reason, "exit status 1: " + std::string(40, 'x'));
  install("line", "head -c 100000 /dev/zero | tr '\\0' y; exit 1");
  EXPECT_EQ(probe(target({"line"})).reason, "exit status 1: " + std::string(160, 'y'));
}

TEST_F(ProbeCommand, MoreThanMayRunAtOnceDoNotLook) {
  install("hang", "sleep 1000");
  install("ok", "exit 0");
  std::vector<std::unique_ptr<ProbeAttempt>> attempts;
  for (size_t i = 0; i < kProbeCommandsAtOnce; ++i) {
    attempts.push_back(start_probe(loop, target({"hang"}), [](const ProbeResult&) {}));
  }
  EXPECT_EQ(commands->running(), kProbeCommandsAtOnce);
  const ProbeResult refused = probe(target({"ok"}));
  EXPECT_FALSE(refused.looked);
  EXPECT_THAT(refused.reason, HasSubstr("32 commands run already"));
  attempts.clear();  // kills them
  ASSERT_TRUE(all_have_ended());
  EXPECT_TRUE(probe(target({"ok"})).success) << "the others are not hurt for good";
}

TEST_F(ProbeCommand, AFaultOfThisHostIsNoVerdictOnABackend) {
  install("open", "exit 0", 0777);
  install("private", "exit 0", 0700);
  std::ofstream(programs + "/odd") << "#!/no/such/interpreter\n";
  ::chmod((programs + "/odd").c_str(), 0755);
  for (const char* name : {"missing", "open", "private", "odd"}) {
    const ProbeResult result = probe(target({name}));
    EXPECT_FALSE(result.looked) << name << ": " << result.reason;
  }
  ProbeTarget without = target({"open"});
  without.commands = nullptr;
  EXPECT_FALSE(probe(without).looked);
}

TEST_F(ProbeCommand, TheDirectoryMustBeTheAdministratorsAndTheUserMayNotBeRoot) {
  ::chmod(programs.c_str(), 0777);
  EXPECT_THAT(ProbeCommands::allow(loop, programs, "nobody").error().message, HasSubstr("may be written by others"));
  ::chmod(programs.c_str(), 0755);
  EXPECT_FALSE(ProbeCommands::allow(loop, "relative", "nobody"));
  EXPECT_FALSE(ProbeCommands::allow(loop, directory / "none", "nobody"));
  if (::geteuid() == 0) {
    EXPECT_FALSE(ProbeCommands::allow(loop, programs, "root"));
    EXPECT_FALSE(ProbeCommands::allow(loop, programs, "no-such-user"));
  }
}

TEST(ProbeCommandControl, ADocumentWithCommandsIsRefusedUnlessControlAllowsThem) {
  EventLoop loop;
  Host host(loop);
  ASSERT_NO_FATAL_FAILURE(host.start());
  const std::string yaml =
      "sites: [{name: eu}]\nnodes: [{name: box, site: eu}]\nprobes: [{name: p, type: command, command: [check]}]\n"
      "pools: [{name: db, probe: p, backends: [{name: db1, addresses: [127.0.0.1], port: 5432}]}]\n";
  const HttpResponse put = host.put_config(yaml);
  EXPECT_EQ(put.status, 409);
  EXPECT_THAT(put.body, HasSubstr("not_on_this_host"));
  EXPECT_THAT(put.body, HasSubstr("without --probe-commands"));
  EXPECT_EQ(host.control->host_state().head().version, 0u);
  EXPECT_EQ(host.put_config(yaml, "*", "?dry_run=true").status, 409);
}

TEST(ProbeCommandControl, AFirstDocumentWithCommandsIsRefusedAtTheStartUnlessControlAllowsThem) {
  EventLoop loop;
  Host host(loop);
  host.options.config = host.directory.write(
      "first.yaml",
      "sites: [{name: eu}]\nnodes: [{name: box, site: eu}]\nprobes: [{name: p, type: command, command: [check]}]\n"
      "pools: [{name: db, probe: p, backends: [{name: db1, addresses: [127.0.0.1], port: 5432}]}]\n");
  const Result<std::unique_ptr<Control>> started = Control::start(loop, host.options);
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("first.yaml is refused: probe 'p' is a command"));
}

}  // namespace tidegate::testing::probe_command_test
