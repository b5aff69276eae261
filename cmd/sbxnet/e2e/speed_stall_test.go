package e2e

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// speedSeed is what the loads follow from: another one each time, unless
// SBXNET_E2E_SEED gives that of a run to repeat.
func speedSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano()) >> 10 << 10 // room to count on
	if s := os.Getenv("SBXNET_E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SBXNET_E2E_SEED: %v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to repeat: SBXNET_E2E_SEED=%d go test -run '^%s$' ./cmd/sbxnet/e2e", seed, t.Name())
		}
	})
	return seed
}

// remoteServers are those of the speed tests on the remote host, TCP and UDP.
// The returned function ends them and says what went wrong at their end.
func remoteServers(t *testing.T) (stop func() error) {
	t.Helper()
	var l net.Listener
	var pc net.PacketConn
	remote(t, func() {
		var err error
		if l, err = net.Listen("tcp", ":"+outsidePort); err != nil {
			t.Errorf("listen on the remote host: %v", err)
		} else if pc, err = net.ListenPacket("udp", ":"+outsidePort); err != nil {
			t.Errorf("listen on the remote host: %v", err)
		}
	})
	if pc == nil {
		t.FailNow()
	}
	t.Cleanup(func() { pc.Close(); l.Close() })
	go echoDatagrams(pc)
	return serveTransfers(l)
}

// carryBothWays runs a sandbox that carries a load out, while the remote host
// carries one of the same kind in, and returns how both went.
func carryBothWays(t *testing.T, flags []string, l load) {
	t.Helper()
	stop := remoteServers(t)
	args := slices.Concat([]string{"run", "-p", "0.0.0.0:" + publishedPort + ":" + publishedPort, "-p", "[::]:" + publishedPort + ":" + publishedPort}, flags,
		[]string{"--", self, speedArg, fmt.Sprint(l.seed), fmt.Sprint(l.count), fmt.Sprint(l.at), fmt.Sprint(l.pausing), l.slowest.String(), remoteAddr4, remoteAddr6})
	cmd := command(t, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	p := startCommand(t, cmd)
	p.waitOutput("serving", 20*time.Second)

	in := l
	in.seed += uint64(l.count)
	hosts := []string{hostAddr4, hostAddr6}
	in.dial = func(i int) (c *net.TCPConn, err error) {
		remote(t, func() { c, err = dialTCP(net.JoinHostPort(hosts[i%len(hosts)], publishedPort)) })
		return c, err
	}
	if err := in.run(); err != nil {
		t.Errorf("published: %v", err)
	}
	p.waitOutput("carried", 2*time.Minute)
	stdin.Close()
	if r := p.wait(time.Minute); r.status != 0 {
		t.Errorf("outbound: status %d: %s%s", r.status, r.stdout, r.stderr)
	} else {
		t.Logf("out: %sin: %s", r.stdout, summary(in.measured))
	}
	if err := stop(); err != nil {
		t.Errorf("the remote host: %v", err)
	}
}

// stallBound is how much longer than its pauses a transfer may take, on a
// machine that does other things too: ordinary ones take a tenth of a second,
// one that stalls tens of seconds, or it does not end. Where frames are lost,
// 8 MiB do take seconds.
const (
	stallBound      = 4 * time.Second
	lossyStallBound = 20 * time.Second
)

// 200 transfers of random sizes, with random sizes of reads and writes and with
// pauses, both directions at once, half of them outbound, half published: each
// byte is compared, and none is slower than a bound.
func TestSpeedNoTransferStalls(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	seed := speedSeed(t)
	for i, c := range []struct {
		name  string
		flags []string
	}{
		{"tap", []string{"--link", "tap"}},
		{"packet", []string{"--link", "packet"}},
		{"tap, 4 queues", []string{"--link", "tap", "--num-network-channels", "4"}},
		{"packet, 4 queues", []string{"--link", "packet", "--num-network-channels", "4"}},
		{"large MTU", []string{"--mtu", "65520"}},
		{"large MTU, packet", []string{"--mtu", "65520", "--link", "packet"}},
		{"no offload", []string{"--gso=false", "--software-gso=false", "--gro=false", "--tx-checksum-offload=false", "--rx-checksum-offload=false"}},
		{"a bad network", []string{"--impair", "delay=2ms,jitter=1ms,loss=1%"}},
		{"drop instead of wait", []string{"--link", "tap", "--qdisc", "none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if slices.Contains(c.flags, "tap") {
				needTAP(t)
			}
			l := load{seed: seed + uint64(i)<<8, count: 100, at: 12, pausing: true, slowest: stallBound}
			if slices.Contains(c.flags, "--impair") {
				l.slowest = lossyStallBound
			}
			if raceEnabled { // which makes all of it some ten times slower
				l.count, l.at, l.slowest = 40, 6, 2*l.slowest
			}
			carryBothWays(t, c.flags, l)
		})
	}
}
