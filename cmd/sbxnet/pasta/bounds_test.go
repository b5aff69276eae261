package pasta

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What fits is taken, and one more is refused.
func TestListsOfOptionsAreBounded(t *testing.T) {
	var servers, domains []string
	for i := range maxDNS + 1 {
		servers = append(servers, fmt.Sprintf("-D 10.0.0.%d", i+1))
	}
	for i := range maxSearch + 1 {
		domains = append(domains, fmt.Sprintf("-S d%d.example.org", i))
	}
	for most, refused := range map[string][2]string{
		strings.Join(servers[:maxDNS], " "):    {servers[maxDNS], "Too many DNS addresses: 10.0.0.9; at most 8"},
		strings.Join(domains[:maxSearch], " "): {domains[maxSearch], "Too many DNS search domains: d16.example.org; at most 16"},
		fmt.Sprintf("-T 1-%d", maxOutward):     {"-T 2000", "-T and -U: 1025 ports of a protocol are more than the 1024"},
		fmt.Sprintf("-U 1-%d", maxOutward):     {"-U 2000", "-T and -U: 1025 ports of a protocol are more than the 1024"},
	} {
		if _, err := parse(append(strings.Fields(most), "1")); err != nil {
			t.Errorf("%.60s...: %v", most, err)
		}
		if _, err := parse(append(strings.Fields(most+" "+refused[0]), "1")); err == nil || !strings.Contains(err.Error(), refused[1]) {
			t.Errorf("%.60s... %s: %v, want %q", most, refused[0], err, refused[1])
		}
	}
}

// The file of --log-file never has more than --log-size, the latest whole lines.
func TestLogFileKeepsTheLatest(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	o := mustParse(t, fmt.Sprintf("--log-file %s --log-size %d 1", name, minLogSize))
	w, err := o.logWriter(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const lines = 1000
	for i := range lines {
		if _, err := fmt.Fprintf(w, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(name); err != nil || st.Size() > minLogSize {
			t.Fatalf("after line %d: %d bytes, %v", i, st.Size(), err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	kept := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(b) < minLogSize/3 {
		t.Errorf("%d bytes are kept", len(b))
	}
	for i, line := range kept {
		if want := fmt.Sprintf("line %d", lines-len(kept)+i); line != want {
			t.Fatalf("line %d of %d is %q, want %q", i, len(kept), line, want)
		}
	}
}
