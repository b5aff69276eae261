package main

import (
	"embed"
	"html"
	"strings"
)

//go:embed demo/page.html demo/style.css demo/checks.js
var demoFiles embed.FS

// pageData is what page.html shows.
type pageData struct {
	Visitor                 string
	FromGateway             bool
	Checks                  []string
	Addresses               []shownAddress
	Routes                  []shownRoute
	Resolver, Link          string
	Hostname                string
	UserInside, UserOutside string
	Namespace               string
}

// render fills in page.html, as text and never as markup. This is no template:
// every sandbox would have html/template and what it needs in memory (1.3 MB),
// for this one page.
func (d *pageData) render() ([]byte, error) {
	page, err := demoFiles.ReadFile("demo/page.html")
	if err != nil {
		return nil, err
	}
	from := ", your own address: nothing rewrites it on the way"
	if d.FromGateway {
		from = ", the sandbox’s gateway: that is how a visitor on the host’s own loopback appears"
	}
	var checks, addresses, routes strings.Builder
	for _, name := range d.Checks {
		checks.WriteString(`<li class="waiting"><span class="dot"></span><div><b>` + html.EscapeString(name) + `</b><p class="muted">checking …</p></div></li>` + "\n")
	}
	for _, a := range d.Addresses {
		addresses.WriteString(`<tr><th scope="row">` + html.EscapeString(a.Interface) + `</th><td class="mono">` + html.EscapeString(a.Address) + "</td></tr>\n")
	}
	for _, r := range d.Routes {
		routes.WriteString(`<tr><th scope="row" class="mono">` + html.EscapeString(r.To) + `</th><td class="mono">` + html.EscapeString(r.Via) + "</td></tr>\n")
	}
	const none = "<tr><td>none</td></tr>\n"
	blanks := []string{
		"{{checks}}", checks.String(), "{{addresses}}", orElse(addresses.String(), none), "{{routes}}", orElse(routes.String(), none),
	}
	for blank, text := range map[string]string{
		"{{visitor}}": d.Visitor, "{{from}}": from, "{{link}}": d.Link, "{{resolver}}": d.Resolver, "{{hostname}}": d.Hostname,
		"{{user inside}}": d.UserInside, "{{user outside}}": d.UserOutside, "{{namespace}}": d.Namespace,
	} {
		blanks = append(blanks, blank, html.EscapeString(text))
	}
	return []byte(strings.NewReplacer(blanks...).Replace(string(page))), nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
