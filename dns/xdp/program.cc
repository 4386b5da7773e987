// SPDX-License-Identifier: Apache-2.0
#include "dns/xdp/program.h"

#include <bpf/bpf.h>
#include <fmt/format.h>
#include <linux/if_link.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

namespace tidegate::dns {
namespace {

// Offsets in a frame.
constexpr int16_t kEtherType = 12, kIp = 14;
constexpr int16_t kIpv4Length = kIp + 2, kIpv4Fragment = kIp + 6, kIpv4Protocol = kIp + 9, kIpv4Source = kIp + 12;
constexpr int16_t kIpv4Target = kIp + 16, kIpv4Udp = kIp + 20;
constexpr int16_t kIpv6Payload = kIp + 4, kIpv6Next = kIp + 6, kIpv6Source = kIp + 8, kIpv6Target = kIp + 24;
constexpr int16_t kIpv6Udp = kIp + 40;
// offsets in UDP's header
constexpr int16_t kSourcePortAt = 0, kTargetPortAt = 2, kUdpLengthAt = 4, kUdpHeaderBytes = 8;
// Offsets in the program's context (struct xdp_md).
constexpr int16_t kData = 0, kDataEnd = 4, kQueue = 16;

constexpr size_t kMaxInstructions = 32'000;  // a jump crosses at most 32,767 instructions

// Registers. r0 is the result of a call, and r1 to r5 are its arguments. A call preserves r6 to r9.
enum Register : uint8_t { r0, r1, r2, r3, r4, r5, r6, r7, r8, r9 };
constexpr Register kFrame = r2, kEnd = r3, kContext = r6;

// A place in the program that is not known yet, and the jumps to it.
struct Label {
  std::vector<size_t> jumps;
};

class Assembler {
 public:
  void load(uint8_t size, Register to, Register from, int16_t offset) {
    emit(BPF_LDX | size | BPF_MEM, to, from, offset, 0);
  }
  void copy(Register to, Register from) { emit(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0); }
  void set(Register to, int32_t value) { emit(BPF_ALU64 | BPF_MOV | BPF_K, to, r0, 0, value); }
  void add(Register to, int32_t value) { emit(BPF_ALU64 | BPF_ADD | BPF_K, to, r0, 0, value); }
  void add(Register to, Register value) { emit(BPF_ALU64 | BPF_ADD | BPF_X, to, value, 0, 0); }
  void mask(Register to, int32_t bits) { emit(BPF_ALU64 | BPF_AND | BPF_K, to, r0, 0, bits); }
  void either(Register to, Register other) { emit(BPF_ALU64 | BPF_OR | BPF_X, to, other, 0, 0); }
  void swap_u16(Register to) { emit(BPF_ALU | BPF_END | BPF_TO_BE, to, r0, 0, 16); }
  void call(int32_t helper) { emit(BPF_JMP | BPF_CALL, r0, r0, 0, helper); }
  void exit() { emit(BPF_JMP | BPF_EXIT, r0, r0, 0, 0); }
  void load_map(Register to, int fd) {
    emit(BPF_LD | BPF_DW | BPF_IMM, to, static_cast<Register>(BPF_PSEUDO_MAP_FD), 0, fd);
    emit(0, r0, r0, 0, 0);
  }
  // An immediate value is sign-extended. If its sign bit is set, only 32 bits of the register are compared.
  void jump_if(uint8_t condition, Register a, Register b, Label& to) { jump(BPF_JMP | condition | BPF_X, a, b, 0, to); }
  void jump_if(uint8_t condition, Register a, uint32_t value, Label& to) {
    const int width = value > INT32_MAX ? BPF_JMP32 : BPF_JMP;
    jump(width | condition | BPF_K, a, r0, static_cast<int32_t>(value), to);
  }
  void jump_always(Label& to) { jump(BPF_JMP | BPF_JA, r0, r0, 0, to); }
  void place(Label& label) {
    for (const size_t jump : label.jumps) code_[jump].off = static_cast<int16_t>(code_.size() - jump - 1);
    label.jumps.clear();
  }
  std::vector<bpf_insn> take() { return std::move(code_); }
  size_t size() const { return code_.size(); }

 private:
  void emit(int code, Register to, Register from, int16_t offset, int32_t value) {
    bpf_insn instruction{};
    instruction.code = static_cast<uint8_t>(code);
    instruction.dst_reg = static_cast<uint8_t>(to & 0xf);
    instruction.src_reg = static_cast<uint8_t>(from & 0xf);
    instruction.off = offset;
    instruction.imm = value;
    code_.push_back(instruction);
  }
  void jump(int code, Register a, Register b, int32_t value, Label& to) {
    to.jumps.push_back(code_.size());
    emit(code, a, b, 0, value);
  }
  std::vector<bpf_insn> code_;
};

// A constant in the byte order of a load from a frame.
template <class Word>
Word word_at(const uint8_t* bytes) {
  Word word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

// Checks that the frame has at least `bytes`.
void require_bytes(Assembler& code, int16_t bytes, Label& pass) {
  code.copy(r4, kFrame);
  code.add(r4, bytes);
  code.jump_if(BPF_JGT, r4, kEnd, pass);
}

// Checks that it is sent to our MAC, and is not too long.
void check_frame(Assembler& code, const XdpMatch& match, Label& pass) {
  require_bytes(code, kIpv4Udp + kUdpHeaderBytes, pass);
  code.copy(r4, kFrame);
  code.add(r4, static_cast<int32_t>(kMaxQueryFrameBytes));
  code.jump_if(BPF_JLT, r4, kEnd, pass);
  for (int16_t at = 0; at < 6; at = static_cast<int16_t>(at + 2)) {
    code.load(BPF_H, r4, kFrame, at);
    code.jump_if(BPF_JNE, r4, word_at<uint16_t>(&match.mac[static_cast<size_t>(at)]), pass);
  }
}

// `udp_bytes` is the length that the IP header leaves for UDP. Checks that UDP's header says the same, and that the
// frame has these bytes.
void check_udp(Assembler& code, int16_t udp, Register udp_bytes, Label& pass) {
  code.load(BPF_H, r4, kFrame, static_cast<int16_t>(udp + kUdpLengthAt));
  code.swap_u16(r4);
  code.jump_if(BPF_JNE, r4, udp_bytes, pass);
  code.jump_if(BPF_JLT, r4, uint32_t{kUdpHeaderBytes}, pass);
  code.jump_if(BPF_JGT, r4, uint32_t{kMaxQueryFrameBytes}, pass);
  code.add(r4, kFrame);
  code.add(r4, udp);
  code.jump_if(BPF_JGT, r4, kEnd, pass);
  code.load(BPF_H, r4, kFrame, static_cast<int16_t>(udp + kSourcePortAt));
  code.jump_if(BPF_JEQ, r4, 0U, pass);
}

void match_ipv4(Assembler& code, const XdpMatch& match, Label& ours, Label& pass) {
  code.load(BPF_B, r4, kFrame, kIp);
  code.jump_if(BPF_JNE, r4, 0x45U, pass);
  code.load(BPF_B, r4, kFrame, kIpv4Protocol);
  code.jump_if(BPF_JNE, r4, uint32_t{IPPROTO_UDP}, pass);
  code.load(BPF_H, r4, kFrame, kIpv4Fragment);
  code.mask(r4, htons(0xbfff));  // all bits except "don't fragment"
  code.jump_if(BPF_JNE, r4, 0U, pass);
  code.load(BPF_H, r5, kFrame, kIpv4Length);
  code.swap_u16(r5);
  code.add(r5, -20);
  check_udp(code, kIpv4Udp, r5, pass);
  // "This" network, loopback, multicast and higher addresses send no queries (RFC 1122 §3.2.1.3).
  code.load(BPF_B, r4, kFrame, kIpv4Source);
  code.jump_if(BPF_JEQ, r4, 0U, pass);
  code.jump_if(BPF_JEQ, r4, 127U, pass);
  code.jump_if(BPF_JGE, r4, 224U, pass);
  code.load(BPF_W, r4, kFrame, kIpv4Target);
  code.load(BPF_H, r5, kFrame, kIpv4Udp + kTargetPortAt);
  for (const Endpoint& endpoint : match.endpoints) {
    if (!endpoint.address.is_v4()) continue;
    Label next;
    code.jump_if(BPF_JNE, r4, endpoint.address.v4_be(), next);
    code.jump_if(BPF_JEQ, r5, uint32_t{htons(endpoint.port)}, ours);
    code.place(next);
  }
  code.jump_always(pass);
}

void match_ipv6(Assembler& code, const XdpMatch& match, Label& ours, Label& pass) {
  require_bytes(code, kIpv6Udp + kUdpHeaderBytes, pass);
  code.load(BPF_B, r4, kFrame, kIp);
  code.mask(r4, 0xf0);
  code.jump_if(BPF_JNE, r4, 0x60U, pass);
  code.load(BPF_B, r4, kFrame, kIpv6Next);
  code.jump_if(BPF_JNE, r4, uint32_t{IPPROTO_UDP}, pass);
  code.load(BPF_H, r5, kFrame, kIpv6Payload);
  code.swap_u16(r5);
  check_udp(code, kIpv6Udp, r5, pass);
  // These sources go to the kernel: multicast, link-local addresses (the kernel knows its links), and addresses that
  // begin with 64 zeros (unspecified, loopback, mapped).
  code.load(BPF_H, r4, kFrame, kIpv6Source);
  code.swap_u16(r4);
  code.jump_if(BPF_JGE, r4, 0xfe80U, pass);
  code.load(BPF_W, r4, kFrame, kIpv6Source);
  code.load(BPF_W, r5, kFrame, kIpv6Source + 4);
  code.either(r4, r5);
  code.jump_if(BPF_JEQ, r4, 0U, pass);
  constexpr Register kWords[] = {r4, r5, r7, r8};
  for (int16_t word = 0; word < 4; ++word) {
    code.load(BPF_W, kWords[word], kFrame, static_cast<int16_t>(kIpv6Target + 4 * word));
  }
  code.load(BPF_H, r9, kFrame, kIpv6Udp + kTargetPortAt);
  for (const Endpoint& endpoint : match.endpoints) {
    if (!endpoint.address.is_v6()) continue;
    Label next;
    for (size_t word = 0; word < 4; ++word) {
      code.jump_if(BPF_JNE, kWords[word], word_at<uint32_t>(&endpoint.address.bytes[4 * word]), next);
    }
    code.jump_if(BPF_JEQ, r9, uint32_t{htons(endpoint.port)}, ours);
    code.place(next);
  }
  code.jump_always(pass);
}

std::string reason(int error) { return std::strerror(error < 0 ? -error : error); }

}  // namespace

Result<std::vector<bpf_insn>> assemble_xdp(const XdpMatch& match, int sockets_fd) {
  Assembler code;
  Label pass, ours, ipv6;
  code.copy(kContext, r1);
  code.load(BPF_W, kFrame, kContext, kData);
  code.load(BPF_W, kEnd, kContext, kDataEnd);
  check_frame(code, match, pass);
  code.load(BPF_H, r4, kFrame, kEtherType);
  code.jump_if(BPF_JEQ, r4, uint32_t{htons(0x86dd)}, ipv6);
  code.jump_if(BPF_JNE, r4, uint32_t{htons(0x0800)}, pass);
  match_ipv4(code, match, ours, pass);
  code.place(ipv6);
  match_ipv6(code, match, ours, pass);
  code.place(ours);
  code.load(BPF_W, r2, kContext, kQueue);
  code.load_map(r1, sockets_fd);
  code.set(r3, XDP_PASS);  // result for a queue without a socket
  code.call(BPF_FUNC_redirect_map);
  code.exit();
  code.place(pass);
  code.set(r0, XDP_PASS);
  code.exit();
  if (code.size() > kMaxInstructions) {
    return fail(fmt::format("{} addresses are more than a program for the kernel can hold", match.endpoints.size()));
  }
  return code.take();
}

Result<UniqueFd> load_xdp(const std::vector<bpf_insn>& instructions) {
  const int fd =
      bpf_prog_load(BPF_PROG_TYPE_XDP, "tidegate_dns", "none", instructions.data(), instructions.size(), nullptr);
  if (fd < 0) return fail(fmt::format("the kernel refuses the XDP program: {}", reason(fd)));
  return UniqueFd(fd);
}

Result<void> XdpAttachment::enter(uint32_t queue, int socket_fd) const {
  const int status = bpf_map_update_elem(sockets.get(), &queue, &socket_fd, BPF_ANY);
  if (status != 0) return fail(fmt::format("queue {} takes no socket: {}", queue, reason(status)));
  return {};
}

Result<XdpAttachment> attach_xdp(const XdpMatch& match, uint32_t queues, unsigned interface_index) {
  XdpAttachment attachment;
  const int sockets =
      bpf_map_create(BPF_MAP_TYPE_XSKMAP, "tidegate_dns", sizeof(uint32_t), sizeof(uint32_t), queues, nullptr);
  if (sockets < 0) return fail(fmt::format("the kernel refuses a map of AF_XDP sockets: {}", reason(sockets)));
  attachment.sockets.reset(sockets);
  const auto instructions = assemble_xdp(match, sockets);
  if (!instructions) return instructions.error();
  const auto program = load_xdp(*instructions);
  if (!program) return program.error();
  int link = -EINVAL;
  for (const uint32_t mode : {XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE}) {
    bpf_link_create_opts options{};
    options.sz = sizeof options;
    options.flags = mode;
    link = bpf_link_create(program->get(), static_cast<int>(interface_index), BPF_XDP, &options);
    attachment.native = mode == XDP_FLAGS_DRV_MODE;
    if (link >= 0 || link == -EBUSY) break;
  }
  if (link < 0) {
    return fail(fmt::format("the XDP program cannot be attached: {}{}", reason(link),
                            link == -EBUSY ? " (another program is in force there)" : ""));
  }
  attachment.link.reset(link);
  return attachment;
}

}  // namespace tidegate::dns
