package portfwd

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sbxnet/portfwd/dns"
	"sbxnet/tapdev"
)

// names appends the paths of a struct's fields, down to those that are no
// structs.
func names(to []string, prefix string, t reflect.Type) []string {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Type.Kind() == reflect.Struct {
			to = names(to, prefix+f.Name+".", f.Type)
		} else {
			to = append(to, prefix+f.Name)
		}
	}
	return to
}

func TestEveryLimitIsOnThePage(t *testing.T) {
	page, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	fields := names(nil, "Limits.", reflect.TypeFor[Limits]())
	fields = names(fields, "Timeouts.", reflect.TypeFor[Timeouts]())
	for _, f := range fields {
		if !strings.Contains(string(page), "`"+f+"`") {
			t.Errorf("%s is not there", f)
		}
	}
}

// Of a statistic the page gives the path from Stats, with [] for an element.
func TestStatisticsOnThePageExist(t *testing.T) {
	page, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	known := names(nil, "", reflect.TypeFor[Stats]())
	stack, _ := reflect.TypeFor[Stats]().FieldByName("Stacks")
	known = names(known, "Stacks[].", stack.Type.Elem())
	exists := make(map[string]bool)
	for _, k := range known {
		exists[k] = true
	}
	for _, link := range names(nil, "tapdev.Stats.", reflect.TypeFor[tapdev.Stats]()) {
		exists[link] = true
	}
	for _, server := range names(nil, "dns.Stats.", reflect.TypeFor[dns.Stats]()) {
		exists[server] = true
	}
	found := 0
	for _, m := range regexp.MustCompile("`((?:TCP|UDP|Echo|DHCP|Stacks\\[\\]|tapdev\\.Stats|dns\\.Stats)\\.[A-Za-z0-9.]+|HandedOver|HandoverLost)`").FindAllStringSubmatch(string(page), -1) {
		found++
		if !exists[m[1]] {
			t.Errorf("%s is no statistic", m[1])
		}
	}
	if found < 20 {
		t.Errorf("%d statistics found", found)
	}
}

// A row of the first tables is a bound, with the statistic that shows it and
// the test that reaches it; one row says why it has none.
func TestEveryBoundHasAStatisticAndATest(t *testing.T) {
	page, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 8 || strings.Contains(cells[1], "---") || strings.TrimSpace(cells[1]) == "limit" {
			continue
		}
		rows++
		statistic, test := cells[5], cells[6]
		if !strings.Contains(statistic, "`") && !strings.Contains(cells[1], "one turn of a shard") {
			t.Errorf("%s: no statistic", cells[1])
		}
		if !strings.Contains(test, "Test") {
			t.Errorf("%s: no test", cells[1])
		}
	}
	if rows < 31 {
		t.Errorf("%d bounds found", rows)
	}
}

func TestTestsOnThePageExist(t *testing.T) {
	page, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, pattern := range []string{"*_test.go", "*/*_test.go", "../netstack/*_test.go", "../netstack/*/*_test.go", "../tapdev/*_test.go", "../userns/*_test.go", "../cmd/sbxnet/*/*_test.go"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(b)
		}
	}
	found := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(page), -1)
	for _, name := range found {
		if !strings.Contains(source.String(), "func "+name+"(") {
			t.Errorf("%s does not exist", name)
		}
	}
	if len(found) < 20 {
		t.Errorf("%d tests found", len(found))
	}
}
