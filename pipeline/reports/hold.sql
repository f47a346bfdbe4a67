-- Take the lines of credits, and the runs but for what only those lines need, into memory, in place of their views.
CREATE OR REPLACE TEMP TABLE held_lines AS FROM credit_lines;
CREATE OR REPLACE TEMP TABLE held_runs AS SELECT * EXCLUDE (breakdown) FROM runs;
CREATE OR REPLACE VIEW credit_lines AS FROM held_lines;
CREATE OR REPLACE VIEW runs AS FROM held_runs;
