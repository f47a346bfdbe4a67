-- Every credit once: one row a charged resource and product line. How it comes about says `credit_lines.sql`.
-- `line` numbers the rows of a resource from 1, so that resources are counted by `count(*) FILTER (WHERE line = 1)`, and
-- those of a product by `… (WHERE is_first_of_product)`.
SELECT * EXCLUDE (unknown_why)
FROM credit_lines
WHERE basis <> 'unknown'
