# SPDX-License-Identifier: Apache-2.0
"""The lab itself: what its machines leave behind after their removal."""

import box
import netns


def test_a_machine_is_raised_again_while_the_kernel_still_holds_its_old_namespace(lab):
    with box.raised(second_port=True) as machine:
        held = open(f"/run/netns/{machine.host.namespace}")  # like a socket that is not freed yet
    with held, box.raised(second_port=True) as machine:
        assert machine.host.namespace in netns.existing()
        ports = [link for link in netns.sh("ip", "-n", netns.ROUTER, "-o", "link", "show").splitlines() if f"-{machine.host.name}@" in link]
        assert len(ports) == 2, ports
