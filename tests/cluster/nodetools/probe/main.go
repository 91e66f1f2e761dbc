// Command probe is what the pods of the cluster's own tests run: one static program, so that a test of the
// nodes needs no image but this one.
//
//	probe say WORD...      print the words and end
//	probe read FILE        print a file
//	probe sleep            wait for SIGTERM, then end with 75 as engram's workers do
//	probe serve ADDRESS    answer every HTTP request with the host's name
//	probe get URL SECONDS  fetch URL, trying again until it answers 200 or SECONDS are over; print the body
//	probe eat MEBIBYTES    take so much memory, slowly, and then wait for ever
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("which one? say, read, sleep, serve, get or eat"))
	}
	arguments := append(os.Args[2:], "", "")
	switch os.Args[1] {
	case "say":
		fmt.Println(strings.Join(os.Args[2:], " "))
	case "read":
		content, err := os.ReadFile(arguments[0])
		fail(err)
		fmt.Print(string(content))
	case "sleep":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		os.Exit(75)
	case "serve":
		fail(serve(arguments[0]))
	case "get":
		body, err := get(arguments[0], arguments[1])
		fail(err)
		fmt.Println(body)
	case "eat":
		fail(eat(arguments[0]))
	default:
		fail(fmt.Errorf("no such thing: %s", os.Args[1]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, name)
	}))
}

func get(url, seconds string) (string, error) {
	limit, err := strconv.Atoi(seconds)
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 2 * time.Second}
	end := time.Now().Add(time.Duration(limit) * time.Second)
	for {
		body, err := once(&client, url)
		if err == nil || time.Now().After(end) {
			return body, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func once(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	return string(body), err
}

func eat(mebibytes string) error {
	wanted, err := strconv.Atoi(mebibytes)
	if err != nil {
		return err
	}
	var held [][]byte
	for range wanted {
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = 1
		}
		held = append(held, block)
	}
	fmt.Println("holding", len(held), "MiB")
	select {}
}
