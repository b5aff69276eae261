package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/console"
)

// States of a check, as the page's style sheet knows them.
const (
	stateOK      = "ok"
	stateFailed  = "failed"
	stateNote    = "note"
	stateWaiting = "waiting"
)

// A check is one thing that the demo found out.
type check struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Detail string `json:"detail"`
}

// The checks of the demo, in the page's order.
const (
	checkLoopback   = "The host’s loopback is closed"
	checkClosedPort = "A port that is not published is refused"
	checkDNS        = "DNS works"
	checkUpstream   = "The host’s resolvers are reached"
)

var checkNames = []string{checkLoopback, checkClosedPort, checkDNS, checkUpstream}

// internalName is the name that sbxnet's DNS answers itself.
const internalName = "host.sbxnet.internal."

// runChecks makes all checks at once and returns them in the page's order.
func (s *demoServer) runChecks(ctx context.Context) []check {
	makers := []func(context.Context) check{
		func(ctx context.Context) check { return loopbackCheck(ctx, s.task, s.around.gateways) },
		func(context.Context) check { return s.lastReport() },
		func(ctx context.Context) check { return dnsCheck(ctx, s.around.nameservers) },
		func(ctx context.Context) check { return upstreamCheck(ctx, s.around.nameservers) },
	}
	results := make([]check, len(makers))
	var all sync.WaitGroup
	for i, make := range makers {
		all.Go(func() { results[i] = make(ctx) })
	}
	all.Wait()
	return results
}

// loopbackCheck tries the port that the demo holds open on the host's loopback,
// by every address under which a sandbox might hope to find it.
func loopbackCheck(ctx context.Context, task demoTask, gateways []netip.Addr) check {
	targets := append([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, gateways...)
	c := check{Name: checkLoopback, State: stateOK}
	var tried []string
	for _, a := range targets {
		at := netip.AddrPortFrom(a, task.HostPort).String()
		result, greeting := tryConnect(ctx, at)
		if greeting == task.hostGreeting() {
			return check{Name: checkLoopback, State: stateFailed, Detail: at + " reached the host"}
		}
		if greeting != "" {
			c.State, result = stateNote, "somebody else answered"
		}
		tried = append(tried, at+": "+result)
	}
	c.Detail = strings.Join(tried, "; ")
	return c
}

// closedPortCheck runs on the host. It tries the port on which the sandbox
// listens without having published it.
func closedPortCheck(ctx context.Context, task demoTask) check {
	c := check{Name: checkClosedPort, State: stateOK}
	var tried []string
	for _, host := range []string{"127.0.0.1", "::1"} {
		at := net.JoinHostPort(host, strconv.Itoa(int(task.ClosedPort)))
		result, greeting := tryConnect(ctx, at)
		if greeting == task.sandboxGreeting() {
			return check{Name: checkClosedPort, State: stateFailed, Detail: at + " on the host reached the sandbox"}
		}
		if greeting != "" {
			c.State, result = stateNote, "another program on the host answered"
		}
		tried = append(tried, at+" on the host: "+result)
	}
	c.Detail = fmt.Sprintf("port %d is open inside; %s", task.ClosedPort, strings.Join(tried, "; "))
	return c
}

// tryConnect says what became of connecting to an address, in a few words, and
// what was sent from there. A connection that sends nothing has been accepted
// by somebody all the same.
func tryConnect(ctx context.Context, at string) (result, greeting string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", at)
	if err != nil {
		return dialFailure(err), ""
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(time.Second))
	sent, _ := io.ReadAll(io.LimitReader(c, 256))
	if len(sent) == 0 {
		return "connected", "(nothing)"
	}
	return "connected", string(sent)
}

func dialFailure(err error) string {
	var errno unix.Errno
	var timeout net.Error
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer"
	}
	return console.OneLine(err.Error())
}

// dnsCheck asks each of the sandbox's servers, over UDP and TCP, for the name
// that sbxnet answers itself: it works without the host being online.
func dnsCheck(ctx context.Context, servers []netip.AddrPort) check {
	var answered []string
	for _, server := range servers {
		for _, network := range []string{"udp", "tcp"} {
			m, took, err := ask(ctx, network, server, internalName, dns.TypeA)
			at := fmt.Sprintf("%s over %s", server.Addr(), strings.ToUpper(network))
			if err != nil {
				return check{Name: checkDNS, State: stateFailed, Detail: at + ": " + dialFailure(err)}
			}
			if len(m.Answer) == 0 {
				return check{Name: checkDNS, State: stateFailed, Detail: fmt.Sprintf("%s: %s for %s", at, dns.RcodeToString[m.Rcode], bare(internalName))}
			}
			answered = append(answered, fmt.Sprintf("%s in %s", at, took.Round(10*time.Microsecond)))
		}
	}
	if answered == nil {
		return check{Name: checkDNS, State: stateFailed, Detail: "the sandbox has no DNS server"}
	}
	return check{Name: checkDNS, State: stateOK, Detail: bare(internalName) + " answered by " + strings.Join(answered, ", ")}
}

// upstreamCheck asks for a name that only the host's resolvers can know. Any
// answer of theirs will do, and offline there is none, which is a note and not
// a failure.
func upstreamCheck(ctx context.Context, servers []netip.AddrPort) check {
	const name = "example.com."
	c := check{Name: checkUpstream, State: stateNote}
	if len(servers) == 0 {
		c.Detail = "the sandbox has no DNS server"
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	m, took, err := ask(ctx, "udp", servers[0], name, dns.TypeA)
	switch {
	case err != nil:
		c.Detail = "no answer for " + bare(name) + " (" + dialFailure(err) + "): is this machine offline?"
	case m.Rcode == dns.RcodeServerFailure:
		c.Detail = "SERVFAIL for " + bare(name) + ": is this machine offline?"
	default:
		c.State, c.Detail = stateOK, fmt.Sprintf("%s for %s in %s", dns.RcodeToString[m.Rcode], bare(name), took.Round(10*time.Microsecond))
	}
	return c
}

// bare is a name without the dot of the root.
func bare(name string) string { return strings.TrimSuffix(name, ".") }

func ask(ctx context.Context, network string, server netip.AddrPort, name string, kind uint16) (*dns.Msg, time.Duration, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	client := &dns.Client{Net: network, Timeout: 3 * time.Second}
	return client.ExchangeContext(ctx, q, server.String())
}
