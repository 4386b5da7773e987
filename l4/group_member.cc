// SPDX-License-Identifier: Apache-2.0
#include "l4/group_member.h"

#include <algorithm>

#include "core/hash.h"
#include "l4/rounds.h"

namespace tidegate::l4 {

// Packs groups into as few frames as possible.
class GroupMember::Writer {
 public:
  Writer(GroupMember& member, FrameSink& sink) : member_(member), sink_(sink) {}
  void add(uint16_t port, MldRecord record, const IpAddress& group) {
    Pending& pending = member_.pending_[port];
    if (member_.ports_[port].version1) {
      send(port, [&](uint8_t* out, const Mac& mac) { return write_mld1_report(out, mac, record, group); });
      return;
    }
    if (pending.record != record) flush(port);
    pending.record = record;
    pending.groups[pending.count++] = group;
    if (pending.count == kMaxMldRecords) flush(port);
  }
  size_t frames() const { return frames_; }
  void flush_all() {
    for (size_t port = 0; port < member_.pending_.size(); ++port) flush(static_cast<uint16_t>(port));
  }

 private:
  void flush(uint16_t port) {
    Pending& pending = member_.pending_[port];
    if (pending.count == 0) return;
    send(port, [&](uint8_t* out, const Mac& mac) {
      return write_mld2_report(out, mac, pending.record, pending.groups.data(), pending.count);
    });
    pending.count = 0;
  }
  template <class Write>
  void send(uint16_t port, Write&& write) {
    uint8_t frame[kMaxMldFrameBytes];
    sink_.send(port, frame, write(frame, member_.ports_[port].mac));
    ++frames_;
  }

  GroupMember& member_;
  FrameSink& sink_;
  size_t frames_ = 0;
};

GroupMember::GroupMember(const std::vector<PortIdentity>& ports)
    : ports_(ports.size()), pending_(ports.size()), set_(std::make_shared<const LocalSet>()) {
  set_ports(ports);
  if (!ports.empty()) std::memcpy(&random_, ports[0].mac.bytes.data(), ports[0].mac.bytes.size());
}

void GroupMember::set_ports(const std::vector<PortIdentity>& ports) {
  for (size_t port = 0; port < ports.size(); ++port) {
    ports_[port].mac = ports[port].mac;
    ports_[port].link_local_group = solicited_node(link_local_of(ports[port].mac));
  }
}

void GroupMember::adopt(std::shared_ptr<const LocalSet> set, uint32_t now_ms) {
  if (set == set_) return;
  set_ = std::move(set);
  if (!set_->groups.empty()) joins_.add(set_->groups.back().since, now_ms);
  if (!set_->left.empty()) leaves_.add(set_->left.back().since, now_ms);
}

void GroupMember::restart(uint32_t now_ms) {
  joins_.restart(now_ms);
  for (PortState& port : ports_) {
    port.joins_left = kReports;
    port.join_due_ms = now_ms;
  }
}

// A random delay. A querier may ask a thousand hosts together, and they should not answer at the same time.
uint32_t GroupMember::delay_ms(uint32_t longest_ms) {
  random_ = mix64(random_ + 0x9e3779b97f4a7c15);
  return static_cast<uint32_t>(random_ % (std::min(longest_ms, kLongestDelayMs) + 1));
}

bool GroupMember::is_member(uint16_t port, const IpAddress& group) const {
  return group == ports_[port].link_local_group ||
         set_->group_index.find(LocalSet::group_key(group, port)) != LookupTable::kAbsent;
}

void GroupMember::on_query(uint16_t number, const MldQuery& query, uint32_t now_ms) {
  PortState& port = ports_[number];
  if (query.version1) {
    port.version1 = true;
    port.version1_until_ms = now_ms + kVersion1Ms;
  }
  const uint32_t due_ms = now_ms + delay_ms(query.longest_delay_ms);
  const bool general = query.group == IpAddress{IpAddress::Family::v6, {}};
  if (!general && !is_member(number, query.group)) return;
  if (!general && port.asked_for_count < kMaxAskedGroups) {
    const auto end = port.asked_for.begin() + static_cast<ptrdiff_t>(port.asked_for_count);
    if (std::find(port.asked_for.begin(), end, query.group) != end) return;
    if (port.asked_for_count == 0) port.asked_for_due_ms = due_ms;
    port.asked_for[port.asked_for_count++] = query.group;
    return;
  }
  // RFC 3810 §6.2: an answer that is already planned is sent at the earlier of the two times.
  if (port.asked && is_due(port.answer_due_ms, due_ms)) return;
  if (!port.asked) port.answered = 0;
  port.asked = true;
  port.answer_due_ms = due_ms;
}

// A version 1 port needs one frame per group, so one such port sets the number for all.
size_t GroupMember::items_a_tick() const {
  const bool any = std::any_of(ports_.begin(), ports_.end(), [](const PortState& port) { return port.version1; });
  return any ? kMaxFramesPerTick : kMaxFramesPerTick * kMaxMldRecords;
}

void GroupMember::join(Writer& writer, uint32_t now_ms) {
  for (size_t number = 0; number < ports_.size(); ++number) {
    PortState& port = ports_[number];
    if (port.joins_left == 0 || !is_due(port.join_due_ms, now_ms)) continue;
    --port.joins_left;
    port.join_due_ms = now_ms + Rounds::kApartMs;
    writer.add(static_cast<uint16_t>(number), MldRecord::joins, port.link_local_group);
  }
  if (joins_.idle() && leaves_.idle()) return;
  const auto say = [&](MldRecord record) {
    return [&writer, record](const Group& group) { writer.add(group.port, record, group.address); };
  };
  joins_.say(set_->groups, now_ms, items_a_tick(), say(MldRecord::joins));
  leaves_.say(set_->left, now_ms, items_a_tick(), say(MldRecord::leaves));
}

void GroupMember::answer(uint16_t number, Writer& writer, uint32_t now_ms) {
  PortState& port = ports_[number];
  if (port.asked_for_count != 0 && is_due(port.asked_for_due_ms, now_ms)) {
    for (size_t i = 0; i < port.asked_for_count; ++i) {
      if (is_member(number, port.asked_for[i])) writer.add(number, MldRecord::is_member, port.asked_for[i]);
    }
    port.asked_for_count = 0;
  }
  if (!port.asked || !is_due(port.answer_due_ms, now_ms)) return;
  if (port.answered == 0) writer.add(number, MldRecord::is_member, port.link_local_group);
  const size_t end = std::min(set_->groups.size(), port.answered + items_a_tick());
  for (; port.answered < end; ++port.answered) {
    const Group& group = set_->groups[port.answered];
    if (group.port == number) writer.add(number, MldRecord::is_member, group.address);
  }
  if (port.answered >= set_->groups.size()) port.asked = false;
}

size_t GroupMember::tick(uint32_t now_ms, FrameSink& sink) {
  Writer writer(*this, sink);
  for (PortState& port : ports_) {
    if (port.version1 && is_due(port.version1_until_ms, now_ms)) port.version1 = false;
  }
  join(writer, now_ms);
  for (size_t port = 0; port < ports_.size(); ++port) answer(static_cast<uint16_t>(port), writer, now_ms);
  writer.flush_all();
  return writer.frames();
}

}  // namespace tidegate::l4
