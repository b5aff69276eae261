package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"sbxnet/cmd/sbxnet/state"
)

// completeCommand is what the shells' scripts call, with the words after sbxnet
// up to the one under the cursor, which may be empty.
const completeCommand = "complete"

const completionHelp = `sbxnet completion bash|zsh|fish prints the script that has the shell complete sbxnet's words.

  bash:  source <(sbxnet completion bash)        in ~/.bashrc
  zsh:   source <(sbxnet completion zsh)         in ~/.zshrc, after compinit
  fish:  sbxnet completion fish | source         in ~/.config/fish/config.fish
`

var completionScripts = map[string]string{
	"bash": `_sbxnet() {
    local IFS=$'\n'
    COMPREPLY=($(sbxnet complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _sbxnet sbxnet
`,
	"zsh": `_sbxnet() {
    local -a words_
    words_=(${(f)"$(sbxnet complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( ${#words_} )); then
        compadd -a words_
    else
        _default
    fi
}
compdef _sbxnet sbxnet
`,
	"fish": `complete -c sbxnet -a '(sbxnet complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
}

// completion is `sbxnet completion`.
func (p *program) completion(c *cli.Context) error {
	script, ok := completionScripts[c.Args().First()]
	if c.Args().Len() != 1 || !ok {
		return usagef("completion %s: not a shell; use bash, zsh or fish", shown(c.Args().First()))
	}
	fmt.Fprint(p.stdout, script)
	return nil
}

// complete prints what the last word may become, a line each; nothing where the
// shell's own completion of file names fits.
func (p *program) complete(c *cli.Context) error {
	words := c.Args().Slice()
	if len(words) == 0 {
		words = []string{""}
	}
	for _, w := range p.candidates(c.App.Commands, words) {
		fmt.Fprintln(p.stdout, w)
	}
	return nil
}

// candidates are what the last of words may become.
func (p *program) candidates(commands []*cli.Command, words []string) []string {
	partial := words[len(words)-1]
	typed := words[:len(words)-1]
	if len(typed) == 0 {
		var names []string
		for _, c := range commands {
			if !c.Hidden {
				names = append(names, c.Name)
			}
		}
		return startingWith(partial, names)
	}
	for _, c := range commands {
		if c.Name == typed[0] {
			return startingWith(partial, argumentsOf(c, typed[1:], partial))
		}
	}
	return nil
}

func startingWith(partial string, words []string) []string {
	words = slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, partial) })
	slices.Sort(words)
	return words
}

// flagValues are those that can be listed.
var flagValues = map[string][]string{
	"network": {"sandbox", "none", "host"}, "user-map": {"auto", "full", "single"}, "link": {"auto", "tap", "packet"},
	"qdisc": {"none", "fifo"}, "log-level": {"debug", "info", "warn", "error"}, "log-format": {"text", "json"}, "dns": {"none"},
}

// verbsOf commands come before their other arguments.
var verbsOf = map[string][]string{
	"port": {"add", "rm", "ls"}, "compat": {"install", "status", "remove"}, "completion": {"bash", "fish", "zsh"},
}

// argumentsOf are what may stand at the end of a command's words, of which typed
// are complete.
func argumentsOf(c *cli.Command, typed []string, partial string) []string {
	var plain []string // arguments that are no flags
	for i := 0; i < len(typed); i++ {
		w := typed[i]
		if w == "--" {
			plain = append(plain, typed[i:]...)
			break
		}
		if !strings.HasPrefix(w, "-") || len(plain) > 0 {
			plain = append(plain, w)
			continue
		}
		if takesValue(c, w) {
			if i++; i == len(typed) {
				return slices.Clone(flagValues[strings.TrimLeft(w, "-")])
			}
		}
	}
	if strings.HasPrefix(partial, "-") && len(plain) == 0 {
		return flagWords(c)
	}
	verbs := verbsOf[c.Name]
	if len(plain) < 1 && verbs != nil {
		return slices.Clone(verbs)
	}
	switch named := c.Name == "port" && len(plain) == 1 || len(plain) == 0; c.Name {
	case "exec", "inspect", "stats", "port":
		if named {
			return runningNames()
		}
	case "stop":
		return runningNames()
	}
	return nil
}

func takesValue(c *cli.Command, word string) bool {
	for _, f := range c.Flags {
		if slices.Contains(f.Names(), strings.TrimLeft(word, "-")) {
			return f.(cli.DocGenerationFlag).TakesValue()
		}
	}
	return false
}

func flagWords(c *cli.Command) []string {
	words := []string{"--help"}
	for _, f := range c.Flags {
		for _, name := range f.Names() {
			words = append(words, dashes(name))
		}
	}
	return words
}

func runningNames() []string {
	running, _ := state.List()
	var names []string
	for _, sandbox := range running {
		names = append(names, sandbox.Name)
		sandbox.Close()
	}
	return names
}
