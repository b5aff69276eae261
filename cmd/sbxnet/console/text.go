package console

import (
	"strconv"
	"strings"
)

// OneLine replaces what would break a line or move a terminal's cursor.
func OneLine(s string) string {
	s = strings.TrimSpace(s)
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Shown is a flag value as a message quotes it: as typed where that is
// readable, in quotation marks where it is empty or has blanks in it.
func Shown(value string) string {
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r == ' ' || !strconv.IsPrint(r) }) {
		return strconv.Quote(value)
	}
	return value
}
