package getopt

import (
	"fmt"
	"strings"
)

// An Option is one that a program takes.
type Option struct {
	// Name is what stands after two dashes; empty: none.
	Name string
	// Short is the letter after one dash; 0: none.
	Short byte
	// Value: a value follows.
	Value bool
}

// A Found is an option as it was given.
type Found struct {
	Option
	// Argument is the option's value, empty without one.
	Argument string
}

// A Set is all options of a program.
type Set []Option

// Parse reads arguments, which do not include the program's name, and returns
// the options in their order and what are none. "--" ends the options. With
// stop, so does the first operand: what follows is a command with options of
// its own.
//
// The error is getopt's, without the program's name in front.
func (s Set) Parse(args []string, stop bool) (found []Found, operands []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var given []Found
		switch {
		case arg == "--":
			return found, append(operands, args...), nil
		case strings.HasPrefix(arg, "--"):
			given, args, err = s.long(arg[2:], args)
		case len(arg) > 1 && arg[0] == '-':
			given, args, err = s.letters(arg[1:], args)
		case stop:
			return found, append(append(operands, arg), args...), nil
		default:
			operands = append(operands, arg)
		}
		if err != nil {
			return nil, nil, err
		}
		found = append(found, given...)
	}
	return found, operands, nil
}

// long reads what stands after two dashes.
func (s Set) long(text string, rest []string) ([]Found, []string, error) {
	name, value, attached := strings.Cut(text, "=")
	o, err := s.named(name, text)
	switch {
	case err != nil:
		return nil, nil, err
	case attached && !o.Value:
		return nil, nil, fmt.Errorf("option '--%s' doesn't allow an argument", o.Name)
	case o.Value && !attached:
		if len(rest) == 0 {
			return nil, nil, fmt.Errorf("option '--%s' requires an argument", o.Name)
		}
		value, rest = rest[0], rest[1:]
	}
	return []Found{{o, value}}, rest, nil
}

// named finds the option of that name, or the only one that begins with it. An
// error quotes all that was written.
func (s Set) named(name, text string) (Option, error) {
	var matches []Option
	for _, o := range s {
		if o.Name == name && name != "" {
			return o, nil
		}
		if o.Name != "" && strings.HasPrefix(o.Name, name) {
			matches = append(matches, o)
		}
	}
	switch len(matches) {
	case 0:
		return Option{}, fmt.Errorf("unrecognized option '--%s'", text)
	case 1:
		return matches[0], nil
	}
	var names strings.Builder
	for _, o := range matches {
		fmt.Fprintf(&names, " '--%s'", o.Name)
	}
	return Option{}, fmt.Errorf("option '--%s' is ambiguous; possibilities:%s", text, names.String())
}

// letters reads what stands after one dash: letters, and after one that takes a
// value, the value.
func (s Set) letters(text string, rest []string) ([]Found, []string, error) {
	var found []Found
	for i := 0; i < len(text); i++ {
		o, ok := s.letter(text[i])
		if !ok {
			return nil, nil, fmt.Errorf("invalid option -- '%c'", text[i])
		}
		if !o.Value {
			found = append(found, Found{Option: o})
			continue
		}
		value := text[i+1:]
		if value == "" {
			if len(rest) == 0 {
				return nil, nil, fmt.Errorf("option requires an argument -- '%c'", o.Short)
			}
			value, rest = rest[0], rest[1:]
		}
		return append(found, Found{o, value}), rest, nil
	}
	return found, rest, nil
}

func (s Set) letter(c byte) (Option, bool) {
	for _, o := range s {
		if o.Short == c && c != 0 {
			return o, true
		}
	}
	return Option{}, false
}
