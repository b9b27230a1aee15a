package main

import (
	"encoding/binary"
	"fmt"
	"os"
)

// readPool reads entries of a little-endian length and as many bytes, up to the end of the file.
func readPool(path string) ([][]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var pool [][]byte
	for rest := content; len(rest) > 0; {
		if len(rest) < 4 || len(rest)-4 < int(binary.LittleEndian.Uint32(rest)) {
			return nil, fmt.Errorf("%s: cut off after %d entries", path, len(pool))
		}
		end := 4 + int(binary.LittleEndian.Uint32(rest))
		pool = append(pool, rest[4:end])
		rest = rest[end:]
	}
	if len(pool) == 0 {
		return nil, fmt.Errorf("%s: no entries", path)
	}
	return pool, nil
}

func writePool(path string, pool [][]byte) error {
	var content []byte
	for _, entry := range pool {
		content = binary.LittleEndian.AppendUint32(content, uint32(len(entry)))
		content = append(content, entry...)
	}
	return os.WriteFile(path, content, 0o644)
}
