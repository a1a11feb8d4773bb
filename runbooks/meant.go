package runbooks

import (
	"slices"
	"strings"
)

// meant is "did you mean `x`?" for the nearest of the known words, or empty.
func meant(word string, known []string) string {
	best, least := "", min(len(word)/3+2, len(word))
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(strings.ToLower(word), k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return didYouMean(best)
}

func didYouMean(word string) string { return "did you mean `" + word + "`?" }

// distance is the number of letters to change, add, drop or swap.
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
