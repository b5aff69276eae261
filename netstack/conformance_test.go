package netstack

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const conformanceTable = "../docs/conformance.md"

var (
	tableTarget = regexp.MustCompile("`([^`]+)`")
	anyRule     = regexp.MustCompile(`^\|[^|]*\|[^|]*\|[^|]*\|[^|]*\|$`)
)

// TestConformanceTable holds docs/conformance.md to its word: every row has four
// cells that say something, and every file, function and test that a row names
// is there.
func TestConformanceTable(t *testing.T) {
	b, err := os.ReadFile(conformanceTable)
	if err != nil {
		t.Fatal(err)
	}
	rules, header := 0, true
	for i, line := range strings.Split(string(b), "\n") {
		if !strings.HasPrefix(line, "|") {
			header = true
			continue
		}
		if header || strings.HasPrefix(line, "|---") {
			header = false
			continue
		}
		rules++
		for _, problem := range checkRule(line) {
			t.Errorf("%s:%d: %s", conformanceTable, i+1, problem)
		}
	}
	if rules < 100 {
		t.Errorf("%s has %d rules: it was not read as it is written", conformanceTable, rules)
	}
}

// checkRule says what is wrong with a row.
func checkRule(row string) (problems []string) {
	if !anyRule.MatchString(row) {
		return []string{"not four cells"}
	}
	cells := strings.Split(strings.Trim(row, "|"), "|")
	for i := range cells {
		if cells[i] = strings.TrimSpace(cells[i]); len(cells[i]) < 3 {
			problems = append(problems, "empty cell")
		}
	}
	if why, ok := strings.CutPrefix(cells[2], "left out:"); ok {
		if len(why) < 20 || cells[3] != "none: left out" {
			problems = append(problems, "left out without a reason")
		}
		return problems
	}
	for column, check := range map[int]func(string) string{2: checkPlace, 3: checkTest} {
		names := tableTarget.FindAllStringSubmatch(cells[column], -1)
		if len(names) == 0 {
			problems = append(problems, "names nothing in column "+"0123"[column:column+1])
		}
		for _, m := range names {
			if p := check(m[1]); p != "" {
				problems = append(problems, p)
			}
		}
	}
	return problems
}

// inTree turns a path of the table into one from here.
func inTree(path string) string {
	if strings.HasPrefix(path, "tapdev") || strings.HasPrefix(path, "portfwd") {
		return filepath.Join("..", path)
	}
	return path
}

// checkPlace checks a file, or a name declared in one: file.go:name.
func checkPlace(place string) string {
	file, name, named := strings.Cut(place, ":")
	b, err := os.ReadFile(inTree(file))
	if err != nil {
		return place + ": no such file"
	}
	declared := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |var |const |\t)` + regexp.QuoteMeta(name) + `\b`)
	if named && !declared.Match(b) {
		return place + ": not declared there"
	}
	return ""
}

// checkTest checks a test, package.TestName, or a script, script/name.
func checkTest(test string) string {
	if name, ok := strings.CutPrefix(test, "script/"); ok {
		if _, err := os.Stat("sim/script/testdata/" + name + ".script"); err != nil {
			return test + ": no such script"
		}
		return ""
	}
	dot := strings.LastIndex(test, ".")
	if dot < 0 {
		return test + ": not a test's name"
	}
	dir, name := inTree(test[:dot]), test[dot+1:]
	if dir == "netstack" {
		dir = "."
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(b), "\nfunc "+name+"(") {
			return ""
		}
	}
	return test + ": no such test"
}

func TestConformanceCheckNoticesFaults(t *testing.T) {
	good := "| a rule | RFC 1 | `arp.go:inputARP` | `netstack.TestConformanceTable` |"
	if p := checkRule(good); len(p) != 0 {
		t.Fatalf("%v", p)
	}
	for _, row := range []string{
		"| a rule | RFC 1 | `arp.go:inputARP` |",
		"| a rule |  | `arp.go:inputARP` | `netstack.TestConformanceTable` |",
		"| a rule | RFC 1 | `arp.go:noSuchName` | `netstack.TestConformanceTable` |",
		"| a rule | RFC 1 | `nosuchfile.go` | `netstack.TestConformanceTable` |",
		"| a rule | RFC 1 | somewhere | `netstack.TestConformanceTable` |",
		"| a rule | RFC 1 | `arp.go:inputARP` | `netstack.TestNoSuchTest` |",
		"| a rule | RFC 1 | `arp.go:inputARP` | `netstack.TestConformance` |",
		"| a rule | RFC 1 | `arp.go:inputARP` | `script/nosuchscript` |",
		"| a rule | RFC 1 | `arp.go:inputARP` | none: left out |",
		"| a rule | RFC 1 | left out: no | none: left out |",
	} {
		if len(checkRule(row)) == 0 {
			t.Errorf("takes %s", row)
		}
	}
}
