package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"sbxnet/cmd/sbxnet/state"
)

const portHelp = `sbxnet port changes the ports that lead into a running sandbox.

  sbxnet port add NAME SPEC...      let the host reach ports; all of them or none
  sbxnet port rm NAME ID|SPEC...    take them back; the host's ports are free again
  sbxnet port ls NAME               what is published

SPEC is as in sbxnet run -p: [HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|/udp].
A number alone is an ID in rm, and a port in add. What is published already is
not published again.

  sbxnet port add web 8080:80 127.0.0.1:8443:443
`

// port is `sbxnet port`.
func (p *program) port(c *cli.Context) error {
	args := c.Args().Slice()
	if err := noFlags(c, args); err != nil {
		return err
	}
	verbs := map[string]func(*state.Client, []string) error{"add": p.addPorts, "rm": p.removePorts, "ls": p.listPorts}
	if len(args) == 0 {
		return usagef("port: say what to do: add, rm or ls; see sbxnet port --help")
	}
	verb, args := args[0], args[1:]
	do, ok := verbs[verb]
	switch {
	case !ok:
		return usagef("port %s: no such command; use add, rm or ls", shown(verb))
	case len(args) == 0:
		return usagef("port %s: name a sandbox; sbxnet ls lists those that run", verb)
	case verb == "ls" && len(args) > 1:
		return usagef("port ls %s: one name is enough", shown(args[1]))
	case verb != "ls" && len(args) == 1:
		return usagef("port %s %s: name a port, such as 8080:80", verb, shown(args[0]))
	}
	return withNamed(args[0], func(sandbox *state.Client) error { return do(sandbox, args[1:]) })
}

func (p *program) addPorts(sandbox *state.Client, specs []string) error {
	added, err := sandbox.AddPorts(specs)
	if err != nil {
		return err
	}
	return p.printPorts(added)
}

// removePorts takes numbers for IDs.
func (p *program) removePorts(sandbox *state.Client, what []string) error {
	var ids []int
	var specs []string
	for _, w := range what {
		if id, err := strconv.Atoi(w); err == nil {
			ids = append(ids, id)
		} else {
			specs = append(specs, w)
		}
	}
	return sandbox.RemovePorts(specs, ids)
}

func (p *program) listPorts(sandbox *state.Client, _ []string) error {
	ports, err := sandbox.Ports()
	if err != nil {
		return err
	}
	return p.printPorts(ports)
}

// printPorts is a line for each entry, with all that listens for it.
func (p *program) printPorts(ports []state.Port) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSPEC\tLISTENING")
	for _, port := range ports {
		fmt.Fprintf(w, "%d\t%s\t%s\n", port.ID, strings.Join(port.Specs, " "), listening(port.Listening))
	}
	return w.Flush()
}

func listening(sockets []state.Listening) string {
	const most = 4
	var text []string
	for n, l := range sockets {
		if n == most {
			text = append(text, fmt.Sprintf("and %d more", len(sockets)-most))
			break
		}
		text = append(text, l.String())
	}
	return strings.Join(text, ", ")
}
