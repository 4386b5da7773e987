// SPDX-License-Identifier: Apache-2.0
// Any messages of a certificate authority, or of somebody in its place: no crash, and accepted values can be sent and
// stored. The first byte says how many steps of the order the input answers. Each answer is a piece up to a zero byte.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "control/acme/messages.h"
#include "control/acme/order_flow.h"
#include "core/assert.h"

using namespace tidegate;
using namespace tidegate::acme;

namespace {

void drive(std::string_view text) {
  static const SigningKey account = SigningKey::make().value(), key = SigningKey::make().value();
  Session session;
  OrderFlow flow(session, account, key, {"https://ca/dir", {}, "", "", {"a.test", "*.b.test"}, "http-01"});
  Action action = flow.begin();
  for (int steps = 0; steps < 200; ++steps) {
    switch (action.kind) {
      case Action::Kind::send: {
        TIDEGATE_ASSERT(action.request.url.starts_with("https://"), "nothing is asked in clear");
        const size_t end = text.find('\0');
        Answer answer;
        answer.status = text.empty() || text[0] != '!' ? 200 : 400;
        answer.body = std::string(text.substr(0, end));
        answer.nonce = "n";
        answer.location = "https://ca/x";
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        action = flow.on_answer(answer);
        break;
      }
      case Action::Kind::publish:
        for (const auto& [name, value] : action.proofs) {
          TIDEGATE_ASSERT(name.size() < 500 && name.find('\n') == std::string::npos, "a proof is a key of the state");
        }
        action = flow.on_published();
        break;
      case Action::Kind::wait:
        action = flow.on_waited();
        break;
      case Action::Kind::issued:
      case Action::Kind::failed:
        return;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_directory(text);
  (void)parse_order(text);
  (void)parse_authorization(text);
  (void)sentence(parse_problem(400, text));
  (void)parse_retry_after_s(text, 0);
  (void)parse_renewal_info(text);
  drive(text);
  return 0;
}
