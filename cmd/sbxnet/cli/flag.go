package cli

import (
	"errors"
	"strconv"
	"strings"
)

// A Flag is a [BoolFlag], [StringFlag], [StringSliceFlag] or [IntFlag].
type Flag interface {
	// Names are all of the flag's, without dashes, the main one first.
	Names() []string
	// Doc is what help says of it.
	Doc() Doc
	value() value
}

// Doc describes a flag to users.
type Doc struct {
	Usage    string
	Category string
	// Default is the value without the flag, empty if that is nothing.
	Default string
	// TakesValue is false for switches, which need none.
	TakesValue bool
}

// BoolFlag is a switch.
type BoolFlag struct {
	Name            string
	Aliases         []string
	Usage, Category string
	Value           bool // without the flag
}

// StringFlag has a text.
type StringFlag struct {
	Name            string
	Aliases         []string
	Usage, Category string
	Value           string // without the flag
}

// StringSliceFlag may be given more than once, each time with a text, whose
// surrounding blanks are taken off.
type StringSliceFlag struct {
	Name            string
	Aliases         []string
	Usage, Category string
}

// IntFlag has a number, as in Go source.
type IntFlag struct {
	Name            string
	Aliases         []string
	Usage, Category string
	Value           int // without the flag
}

func names(name string, aliases []string) []string { return append([]string{name}, aliases...) }

// Names implements [Flag].
func (f *BoolFlag) Names() []string { return names(f.Name, f.Aliases) }

// Names implements [Flag].
func (f *StringFlag) Names() []string { return names(f.Name, f.Aliases) }

// Names implements [Flag].
func (f *StringSliceFlag) Names() []string { return names(f.Name, f.Aliases) }

// Names implements [Flag].
func (f *IntFlag) Names() []string { return names(f.Name, f.Aliases) }

// Doc implements [Flag].
func (f *BoolFlag) Doc() Doc {
	return Doc{Usage: f.Usage, Category: f.Category, Default: strconv.FormatBool(f.Value)}
}

// Doc implements [Flag].
func (f *StringFlag) Doc() Doc {
	return Doc{Usage: f.Usage, Category: f.Category, Default: f.Value, TakesValue: true}
}

// Doc implements [Flag].
func (f *StringSliceFlag) Doc() Doc {
	return Doc{Usage: f.Usage, Category: f.Category, TakesValue: true}
}

// Doc implements [Flag].
func (f *IntFlag) Doc() Doc {
	return Doc{Usage: f.Usage, Category: f.Category, Default: strconv.Itoa(f.Value), TakesValue: true}
}

// value is what a flag has on one command line.
type value interface {
	set(text string) error
	get() any // a bool, string, []string or int
}

func (f *BoolFlag) value() value        { return &boolValue{f.Value} }
func (f *StringFlag) value() value      { return &stringValue{f.Value} }
func (f *StringSliceFlag) value() value { return &sliceValue{} }
func (f *IntFlag) value() value         { return &intValue{f.Value} }

type (
	boolValue   struct{ is bool }
	stringValue struct{ is string }
	sliceValue  struct{ is []string }
	intValue    struct{ is int }
)

// errParse and errRange are the flag package's.
var (
	errParse = errors.New("parse error")
	errRange = errors.New("value out of range")
)

func (v *boolValue) set(text string) error {
	b, err := strconv.ParseBool(text)
	if err != nil {
		return errParse
	}
	v.is = b
	return nil
}

func (v *stringValue) set(text string) error {
	v.is = text
	return nil
}

func (v *sliceValue) set(text string) error {
	v.is = append(v.is, strings.TrimSpace(text))
	return nil
}

func (v *intValue) set(text string) error {
	n, err := strconv.ParseInt(text, 0, strconv.IntSize)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return errRange
	case err != nil:
		return errParse
	}
	v.is = int(n)
	return nil
}

func (v *boolValue) get() any   { return v.is }
func (v *stringValue) get() any { return v.is }
func (v *sliceValue) get() any  { return v.is }
func (v *intValue) get() any    { return v.is }
