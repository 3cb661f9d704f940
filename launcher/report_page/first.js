// Says before the table of jobs is there that a script will show it, or the browser would lay out all of it again and again while it reads the page.
document.documentElement.classList.add("js");
