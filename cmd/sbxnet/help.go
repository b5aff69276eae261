package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

const appHelp = `sbxnet gives a command its own network, without privilege.

  sbxnet run [flags] [--] [CMD [ARG...]]   run CMD (default: $SHELL) in a sandbox
  sbxnet attach [flags] PID|PATH           give a network namespace that exists the same network

  sbxnet ls                                your sandboxes that run
  sbxnet port add|rm|ls NAME [SPEC...]     change the ports that lead into one
  sbxnet exec NAME [--] [CMD [ARG...]]     run CMD in one
  sbxnet inspect NAME                      what one is, as JSON
  sbxnet stats NAME                        what one's network has carried
  sbxnet stop NAME...                      end them

  sbxnet compat install|status|remove DIR  stand in for slirp4netns, pasta and rootlesskit
  sbxnet completion bash|zsh|fish          what the shell needs to complete all this
  sbxnet demo                              see a sandbox at work in a browser
  sbxnet doctor                            what this machine allows, and how to mend it
  sbxnet version                           which sbxnet this is

  sbxnet run -p 8080:80 -- ./server        localhost:8080 is the sandbox's port 80
  sbxnet run --network none -- make test   no network at all

"sbxnet COMMAND --help" says more, and lists the flags.
`

const runHelpHead = `sbxnet run [flags] [--] [CMD [ARG...]] runs CMD (default: $SHELL) with a network of its own.

It reaches whatever the host reaches, except the host's loopback. Nothing reaches
it but the ports that -p names. Flags after CMD are CMD's.

  sbxnet run -p 8080:80 -- ./server              localhost:8080 -> port 80
  sbxnet run -p 0.0.0.0:5353:53/udp -- ./dns     from other machines too
  sbxnet run -p 80 -- ./server                   a free host port, printed
  sbxnet run --network none -- ./untrusted       no network
  sbxnet run --mtu 65520 --pcap out.pcapng -- sh

The exit status is CMD's, 128+n for signal n, 125 if sbxnet itself fails,
126 if CMD cannot be executed, 127 if it is not found.
`

// runHelp is the help text of run, with the flags in the groups that
// runFlags has them in.
func runHelp() string {
	return groupedHelp(runHelpHead, runFlags())
}

// groupedHelp is head, and flags under the names of their groups.
func groupedHelp(head string, flags []cli.Flag) string {
	var b strings.Builder
	b.WriteString(head)
	group := ""
	for _, f := range flags {
		if g := f.(cli.CategorizableFlag).GetCategory(); g != group {
			group = g
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		b.WriteString(flagHelp(f.(cli.DocGenerationFlag)))
	}
	return b.String()
}

// flagHelp is one line, or two where the flag's own part is long.
func flagHelp(f cli.DocGenerationFlag) string {
	const column = 36
	names := "      --" + f.Names()[0]
	if len(f.Names()) > 1 {
		names = "  -" + f.Names()[1] + ", --" + f.Names()[0]
	}
	value, usage := splitUsage(f.GetUsage())
	switch standard := strings.Trim(f.GetDefaultText(), `"`); {
	case !f.TakesValue() && standard == "true":
		names += "=false"
	case f.TakesValue():
		names += " " + value
		if standard != "" {
			usage += " (default: " + standard + ")"
		}
	}
	if len(names)+2 > column {
		return names + "\n" + strings.Repeat(" ", column) + usage + "\n"
	}
	return fmt.Sprintf("%-*s%s\n", column, names, usage)
}

// splitUsage takes the name of the flag's value off the front of its usage.
func splitUsage(usage string) (value, rest string) {
	if !strings.HasPrefix(usage, "`") {
		return "", usage
	}
	value, rest, _ = strings.Cut(usage[1:], "`")
	return value, strings.TrimSpace(rest)
}
