package e2e

import (
	"fmt"
	"strings"
	"testing"
)

func TestCompatRealRootlesskitOverPasta(t *testing.T) {
	for _, c := range []struct{ name, driver, mode string }{
		{"none", "none", ""},
		{"implicit", "implicit", ""},
		{"pesto", "pesto", ""},
		{"implicit detached", "implicit", "--detach-netns"},
		{"pesto detached", "pesto", "--detach-netns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRootless(t)
			flags := []string{"--net=pasta", "--pasta-binary=" + r.ours + "/pasta", "--pesto-binary=" + r.ours + "/pesto",
				"--disable-host-loopback", "--port-driver=" + c.driver}
			if c.mode != "" {
				flags = append(flags, c.mode)
			}
			k := r.startKit(r.real("rootlesskit"), flags...)
			got := k.inside("ip -o -4 addr show dev tap0; ip route; cat /etc/resolv.conf")
			for _, want := range []string{"10.0.2.100/24", "default via 10.0.2.2 "} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q inside:\n%s", want, got)
				}
			}
			k.reaches()
			switch c.driver {
			case "pesto":
				k.ports()
			case "implicit":
				port := steadyPort(t)
				r.start("nsenter", append(k.entering(), "whoami", fmt.Sprint(port), fmt.Sprint(port))...)
				for _, network := range []string{"tcp", "udp"} {
					if seen := r.seenAs(network, on(hostAddr(t), port)); seen != hostAddr(t) {
						t.Errorf("%s: the server sees %s, want the client's own %s", network, seen, hostAddr(t))
					}
				}
			}
			k.stop()
		})
	}
}
