package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/tapdev"
	"sbxnet/userns"
)

// doctorProbeCommand is how doctor starts this executable in a sandbox.
const doctorProbeCommand = "doctor-probe"

// A finding is one line of doctor's.
type finding struct{ Name, Status, Detail, Fix string }

// String is the finding as run prints it too, when that is why it fails.
func (f finding) String() string {
	s := f.Name + ": " + f.Detail
	if f.Fix != "" && f.Status != tapdev.OK {
		s += "; to mend it: " + f.Fix
	}
	return console.OneLine(s)
}

// runDoctor is `sbxnet doctor`.
func (p *program) runDoctor() error {
	var found []finding
	for _, f := range userns.Check() {
		found = append(found, finding{f.Name, string(f.Status), f.Detail, f.Fix})
	}
	able := essentials(found)
	for _, f := range tapdev.Check() {
		found = append(found, finding(f))
	}
	if able {
		inside, err := probeInside()
		if err != nil {
			inside = []finding{{Name: "a sandbox", Status: tapdev.Missing, Detail: err.Error()}}
		}
		found = append(found, inside...)
		able = hasLink(inside)
	}
	for _, f := range found {
		fmt.Fprintf(p.stdout, "%-9s %s\n", f.Status, f)
	}
	if !able {
		fmt.Fprintln(p.stdout, "\nsbxnet run cannot work here until what is missing is mended.")
		return &statusError{Status: exitDoctor}
	}
	fmt.Fprintln(p.stdout, "\nsbxnet run works here.")
	return nil
}

// essentials reports whether nothing is missing. It is asked about namespaces,
// all of which a sandbox needs.
func essentials(found []finding) bool {
	for _, f := range found {
		if f.Status == tapdev.Missing {
			return false
		}
	}
	return true
}

// hasLink reports whether one of the kinds of link can be opened; one is
// enough.
func hasLink(found []finding) bool {
	for _, kind := range []tapdev.Kind{tapdev.TAP, tapdev.Packet} {
		for _, f := range found {
			if f.Name == string(kind)+" link" && f.Status != tapdev.Missing {
				return true
			}
		}
	}
	return false
}

// probeInside makes a throw-away sandbox and has this program look around in
// it.
func probeInside() ([]finding, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("/proc/self/exe", "run", "--network", "none", "--log-level", "error", "--", "/proc/self/exe", doctorProbeCommand)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimPrefix(strings.TrimSpace(stderr.String()), "sbxnet: ")
		if said == "" {
			said = err.Error()
		}
		return nil, fmt.Errorf("cannot be started: %s", said)
	}
	var found []finding
	if err := json.Unmarshal(stdout.Bytes(), &found); err != nil {
		return nil, fmt.Errorf("did not say what it found: %w", err)
	}
	return found, nil
}

// probe runs in the throw-away sandbox.
func probe() error {
	found := []finding{}
	for _, f := range tapdev.Probe() {
		found = append(found, finding(f))
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
