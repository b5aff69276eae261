package pasta

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/getopt"
	"sbxnet/portfwd/spec"
)

// The pestoSet is pesto's options.
var pestoSet = getopt.Set{
	{Name: "add", Short: 'A'},
	{Name: "delete", Short: 'D'},
	{Name: "tcp-ports", Short: 't', Value: true},
	{Name: "udp-ports", Short: 'u', Value: true},
	{Name: "show", Short: 's'},
	{Name: "debug", Short: 'd'},
	{Name: "quiet", Short: 'q'},
	{Name: "help", Short: 'h'},
	{Name: "version"},
}

// pestoOptions are a command line of pesto, read and checked.
type pestoOptions struct {
	Help, Version, Show bool
	Changes             []change
	Socket              string
}

// PestoMain is Main under the name of pesto.
func PestoMain(args []string) int {
	return runPesto(args[1:], os.Stdout, os.Stderr)
}

func runPesto(args []string, stdout, stderr io.Writer) int {
	o, err := parsePesto(args)
	switch {
	case err != nil:
		return complain(stderr, "pesto", err)
	case o.Help:
		fmt.Fprint(stdout, pestoHelp)
		return exitOK
	case o.Version:
		fmt.Fprint(stdout, versionText("pesto"))
		return exitOK
	}
	a, err := ask(o.Socket, request{Changes: o.Changes})
	if err != nil {
		return complain(stderr, "pesto", err)
	}
	if o.Show {
		for _, line := range a.Published {
			fmt.Fprintln(stdout, line)
		}
	}
	return exitOK
}

// parsePesto reads the arguments behind the program's name.
func parsePesto(args []string) (*pestoOptions, error) {
	found, operands, err := pestoSet.Parse(args, false)
	if err != nil {
		return nil, usageError{err}
	}
	o := &pestoOptions{}
	operation := opSet
	for _, f := range found {
		switch f.Name {
		case "help":
			return &pestoOptions{Help: true}, nil
		case "version":
			return &pestoOptions{Version: true}, nil
		case "show":
			o.Show = true
		case "add", "delete":
			operation = f.Name
		case "tcp-ports":
			o.change(operation, spec.TCP, f.Argument)
		case "udp-ports":
			o.change(operation, spec.UDP, f.Argument)
		}
	}
	for _, c := range o.Changes {
		if _, err := c.rules(false); err != nil {
			return nil, err
		}
	}
	switch {
	case len(operands) != 1 || operands[0] == "":
		return nil, usageError{errors.New("name one SOCKET, the value of pasta's --conf-path")}
	case len(o.Changes) == 0 && !o.Show:
		return nil, usageError{errors.New("nothing to do: give --add, --delete or --show, with -t or -u")}
	}
	o.Socket = operands[0]
	return o, nil
}

// change takes one spec more; what stands together is one change.
func (o *pestoOptions) change(operation string, protocol spec.Protocol, value string) {
	for i := range o.Changes {
		if c := &o.Changes[i]; c.Operation == operation && c.Protocol == protocol {
			c.Specs = append(c.Specs, value)
			return
		}
	}
	o.Changes = append(o.Changes, change{operation, protocol, []string{value}})
}

// maxAnswer bounds what pasta may say, in bytes.
const maxAnswer = 16 << 20

// ask sends a request and returns the answer to it.
func ask(path string, r request) (answer, error) {
	at := console.Shown(path)
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w; is pasta running with --conf-path %s?", at, cause(err), at)
	}
	defer c.Close()
	// Twice as long as the other end takes to give up.
	c.SetDeadline(time.Now().Add(2 * controlTimeout))
	err = json.NewEncoder(c).Encode(r)
	if err == nil {
		err = c.CloseWrite()
	}
	if err != nil {
		return answer{}, fmt.Errorf("%s: send the request: %w", at, cause(err))
	}
	var a answer
	if err := json.NewDecoder(io.LimitReader(c, maxAnswer)).Decode(&a); err != nil {
		return answer{}, fmt.Errorf("%s: read the answer: %w", at, err)
	}
	if a.Error != "" {
		return answer{}, errors.New(a.Error)
	}
	return a, nil
}
