package rootlesskit

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/dns"
)

// environment is ours with what the original adds to it, by which programs know
// that they run in it and who started it.
func environment(stateDir string) []string {
	own := []string{
		"ROOTLESSKIT_STATE_DIR=" + stateDir,
		"ROOTLESSKIT_PARENT_EUID=" + strconv.Itoa(os.Geteuid()),
		"ROOTLESSKIT_PARENT_EGID=" + strconv.Itoa(os.Getegid()),
	}
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "ROOTLESSKIT_") {
			env = append(env, e)
		}
	}
	return append(env, own...)
}

// resolvConf names the network's own name servers, with the host's search
// domains; empty for the host's file.
func resolvConf(p network.Plan, log *slog.Logger) string {
	var servers []netip.Addr
	for _, f := range p.Families() {
		servers = append(servers, f.DNS)
	}
	if len(servers) == 0 {
		return ""
	}
	host, err := dns.ReadConf(network.ResolvConf)
	if err != nil {
		log.Warn("the sandbox gets none of the host's search domains: " + err.Error())
	}
	return string(host.Sandbox(servers...))
}

// writeDetachedFile puts a file into the state directory, for those who enter a
// detached network namespace: the command's own /etc is the host's.
func writeDetachedFile(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
