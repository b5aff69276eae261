package main

import (
	"strings"
	"testing"
)

func TestPageHoldsTextAndNoMarkup(t *testing.T) {
	const evil = `<b>"{{checks}}"</b>`
	d := pageData{
		Visitor: evil, Checks: []string{evil}, Addresses: []shownAddress{{evil, evil}}, Routes: []shownRoute{{evil, evil}},
		Resolver: evil, Link: evil, Hostname: evil, UserInside: evil, UserOutside: evil, Namespace: evil,
	}
	raw, err := d.render()
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)
	const shown = `&lt;b&gt;&#34;{{checks}}&#34;&lt;/b&gt;`
	if n := strings.Count(page, shown); n != 12 || strings.Contains(page, evil) {
		t.Errorf("shown %d times, want 12; as markup: %v", n, strings.Contains(page, evil))
	}
	if rest := strings.ReplaceAll(page, shown, ""); strings.Contains(rest, "{{") || strings.Contains(rest, "<td>none</td>") {
		t.Errorf("blanks are left, or lists empty:\n%s", rest)
	}
}

func TestPageOfASandboxWithoutAddresses(t *testing.T) {
	here, away := &pageData{FromGateway: true}, &pageData{}
	for d, want := range map[*pageData]string{here: "the sandbox’s gateway", away: "your own address"} {
		page, err := d.render()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(page), "<td>none</td>") != 2 || !strings.Contains(string(page), want) {
			t.Errorf("not %q and two empty lists:\n%s", want, page)
		}
	}
}
