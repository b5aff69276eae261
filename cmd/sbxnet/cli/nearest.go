package cli

// Nearest is the name of a flag of the command that was meant by one that there
// is not, empty if none is near. Half of its letters may be missing, wrong or
// too many.
func (c *Command) Nearest(name string) string {
	best, nearest := len(name)/2+1, ""
	for _, f := range append([]Flag{&BoolFlag{Name: "help"}}, c.Flags...) {
		for _, candidate := range f.Names() {
			if d := distance(name, candidate); d < best && len(candidate) > 1 {
				best, nearest = d, candidate
			}
		}
	}
	return nearest
}

// distance is how many letters have to be put in, left out or changed to make b
// of a (Levenshtein's), in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // from a's beginning so far to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
