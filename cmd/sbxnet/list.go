package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/state"
)

const lsHelp = `sbxnet ls [flags] lists your sandboxes that run, with the ports that lead into them.
`

// A listed sandbox is what it says of itself, or why it does not.
type listed struct {
	name string
	raw  json.RawMessage
	err  error
}

// list is `sbxnet ls`.
func (p *program) list(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("ls %s: takes no names", shown(c.Args().First()))
	}
	running, err := state.List()
	if err != nil {
		return err
	}
	if c.Bool("quiet") {
		for _, sandbox := range running {
			sandbox.Close()
			fmt.Fprintln(p.stdout, sandbox.Name)
		}
		return nil
	}
	all := inspectAll(running)
	if c.Bool("json") {
		return p.listJSON(all)
	}
	return p.listTable(all)
}

// listPatience is how long a sandbox may take to say what it is.
const listPatience = 3 * time.Second

// inspectAll asks all at once, so that one that hangs costs no more than itself.
func inspectAll(running []*state.Client) []listed {
	all := make([]listed, len(running))
	var asking sync.WaitGroup
	for i, sandbox := range running {
		asking.Add(1)
		go func() {
			defer asking.Done()
			defer sandbox.Close()
			sandbox.SetPatience(listPatience)
			all[i].name = sandbox.Name
			all[i].err = sandbox.Inspect(&all[i].raw)
		}()
	}
	asking.Wait()
	return all
}

func (p *program) listJSON(all []listed) error {
	list := []json.RawMessage{}
	for _, l := range all {
		if l.err == nil {
			list = append(list, l.raw)
		}
	}
	return p.printJSON(list)
}

func (p *program) listTable(all []listed) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tPID\tNETWORK\tUP\tPORTS\tCOMMAND")
	for _, l := range all {
		var i inspection
		err := l.err
		if err == nil {
			err = json.Unmarshal(l.raw, &i)
		}
		if err != nil {
			fmt.Fprintf(w, "%s\t?\t?\t?\t?\t(%s)\n", l.name, console.OneLine(err.Error()))
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", l.name, i.PID, i.Network, since(i.Started), portsInBrief(i.Ports), i.what())
	}
	return w.Flush()
}

// what runs in the sandbox, in one line that is not endless.
func (i *inspection) what() string {
	text := strings.Join(i.Command, " ")
	if i.Target != "" {
		text = i.Target
	}
	const most = 40
	runes := []rune(console.OneLine(text))
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	if len(runes) == 0 {
		return "-"
	}
	return string(runes)
}

// since is how long ago that was, in its largest unit.
func since(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// portsInBrief names each entry's first socket, and how many more there are.
func portsInBrief(ports []state.Port) string {
	const most = 3
	var brief []string
	for n, port := range ports {
		if n == most {
			brief = append(brief, fmt.Sprintf("and %d more", len(ports)-most))
			break
		}
		if len(port.Listening) > 0 {
			brief = append(brief, port.Listening[0].String())
		}
	}
	if len(brief) == 0 {
		return "-"
	}
	return strings.Join(brief, ", ")
}
