package netstack

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// ownGenerator is what of math/rand/v2 may be used: what makes or names a
// generator. The rest draws from a global one.
var ownGenerator = map[string]bool{"New": true, "NewChaCha8": true, "NewPCG": true, "Rand": true, "ChaCha8": true,
	"PCG": true, "Source": true, "NewZipf": true, "Zipf": true}

// clocks are the parts of package time that read or wait on a clock.
var clocks = map[string]bool{"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"Tick": true, "NewTimer": true, "NewTicker": true}

// forbidden are packages that do input, output, locking or scheduling, or bring
// randomness that no seed controls. Below netstack the standard library is
// all there is.
func forbidden(path string) bool {
	switch path {
	case "os", "io", "net", "log", "log/slog", "syscall", "runtime", "context", "crypto/rand", "hash/maphash",
		"math/rand", "unsafe", "C", "sync", "sync/atomic":
		return true
	}
	for _, room := range []string{"os/", "io/", "net/", "runtime/", "log/", "sync/", "internal/"} {
		if strings.HasPrefix(path, room) {
			return path != "net/netip"
		}
	}
	if path == "sbxnet/netstack" { // netstack/sim may; for all that netstack is made of it would be a cycle
		return false
	}
	if strings.HasPrefix(path, "sbxnet/") {
		return !strings.HasPrefix(path, "sbxnet/netstack/") || strings.HasPrefix(path, "sbxnet/netstack/socket")
	}
	return strings.Contains(strings.SplitN(path, "/", 2)[0], ".") // golang.org/x/… and others
}

// TestNetstackIsSansIO holds every source file of netstack, but for
// netstack/socket, to the rule that makes it repeatable: no system call,
// goroutine, clock, lock or global randomness.
func TestNetstackIsSansIO(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "socket" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		for _, complaint := range impurities(t, path, nil) {
			t.Error(complaint)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 30 {
		t.Fatalf("looked at %d files only", files)
	}
}

// TestSansIOCheckNoticesOffences makes sure that the test above can fail.
func TestSansIOCheckNoticesOffences(t *testing.T) {
	for name, source := range map[string]string{
		"clock":             `package p; import "time"; var x = time.Now()`,
		"renamed clock":     `package p; import clock "time"; var x = clock.Since(clock.Time{})`,
		"goroutine":         `package p; func f() { go f() }`,
		"lock":              `package p; import "sync"; var m sync.Mutex`,
		"system call":       `package p; import "syscall"; var x = syscall.Getpid()`,
		"socket":            `package p; import "net"; var x net.Conn`,
		"global randomness": `package p; import "math/rand/v2"; var x = rand.IntN(3)`,
		"channel":           `package p; var c = make(chan int)`,
		"another module":    `package p; import _ "golang.org/x/sys/unix"`,
		"room above":        `package p; import _ "sbxnet/portfwd"`,
	} {
		if len(impurities(t, name+".go", source)) == 0 {
			t.Errorf("%s goes unnoticed", name)
		}
	}
	fine := `package p; import ("math/rand/v2"; "net/netip"; "time"); var x *rand.Rand = rand.New(rand.NewPCG(1, 2)); var y netip.Addr; const z = time.Second`
	if got := impurities(t, "fine.go", fine); len(got) != 0 {
		t.Errorf("complains about what is fine: %q", got)
	}
}

// impurities lists what a source file does that it must not.
func impurities(t *testing.T, path string, source any) (complaints []string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	complain := func(n ast.Node, what string) {
		complaints = append(complaints, set.Position(n.Pos()).String()+": "+what)
	}
	names := map[string]string{} // of imports, as used in this file
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		name := filepath.Base(strings.TrimSuffix(imported, "/v2"))
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = imported
		if forbidden(imported) {
			complain(spec, "imports "+imported)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			complain(n, "starts a goroutine")
		case *ast.ChanType:
			complain(n, "uses a channel")
		case *ast.SelectorExpr:
			id, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch names[id.Name] {
			case "time":
				if clocks[n.Sel.Name] {
					complain(n, "reads a clock: time."+n.Sel.Name)
				}
			case "math/rand/v2":
				if !ownGenerator[n.Sel.Name] {
					complain(n, "uses global randomness: rand."+n.Sel.Name)
				}
			}
		}
		return true
	})
	return complaints
}
