"""The words that the sentences of the synthetic corpus are made of."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split(","))


# Keys are the slots of the templates in sentences.py. Together the lists use every phoneme of English.
WORDS: dict[str, tuple[str, ...]] = {
    "name": _words("""
        Alice, Benjamin, Charlotte, Dmitri, Eleanor, Farouk, Georgia, Hugo, Isabel, Jasper, Keiko, Leopold, Miriam,
        Nathan, Olive, Priya, Quentin, Rosa, Samuel, Theo, Ursula, Victor, Wanda, Xavier, Yusuf, Zoe, Joyce, Ruth,
        Arthur, Beth, Roy, Shirley, Hayley, Bilal, Ingrid, Malik, Noor, Pearl, Stefan, Thea, Vaughan, Winnie
    """),
    "person": _words("""
        the baker, the pilot, our neighbour, my cousin, the night nurse, an old fisherman, the choir leader,
        the young engineer, a tired postman, the piano teacher, the judge, my youngest sister, her uncle, the gardener,
        a retired dentist, the lighthouse keeper, the chemist, the bus driver, a travelling musician, the watchmaker,
        their grandmother, the new captain, a curious journalist, the shy librarian, the ferry pilot, a stranger,
        the goalkeeper, his maths teacher, the village doctor, the beekeeper, an usher, the voice coach
    """),
    "people": _words("""
        the children, our guests, the sailors, both brothers, the players, most visitors, the farmers, the students,
        three of the judges, the volunteers, her colleagues, the musicians, all the passengers, the twins, the climbers,
        the neighbours, a few tourists, the mayor and her staff, the other drivers, many of the workers
    """),
    "animal": _words("""
        fox, heron, badger, donkey, sheepdog, otter, kitten, raven, tortoise, zebra, moth, pigeon, giraffe, squirrel,
        owl, mouse, jaguar, elephant, goose, beetle, thrush, vulture, wolf, hedgehog, oyster catcher, lynx, koala, toad
    """),
    "object": _words("""
        lantern, violin, suitcase, umbrella, brass key, wooden chair, teapot, bicycle, blue envelope, camera, telescope,
        leather glove, kitchen knife, silver watch, spare tyre, mirror, toolbox, paper map, clay jug, garden hose,
        photograph, chess board, cushion, radio, old typewriter, feather pillow, glass jar, rope, music box, drum,
        notebook, iron gate, clock, sewing machine, kettle, oil painting, thimble, tall ladder, beige coat
    """),
    "objects": _words("""
        letters, boxes, lemons, bricks, theatre tickets, oysters, candles, shelves, parcels, keys, matches, coins,
        photographs, blankets, roof tiles, chairs, measuring cups, apples, tulips, wool socks, thin wires, brushes,
        buttons, jigsaw pieces, feathers, garden tools, cages, horseshoes, blue beads, batteries, orange boxes
    """),
    "food": _words("""
        mushroom soup, fresh bread, cherry jam, roast chicken, boiled rice, goat cheese, onion pie, rhubarb cake,
        smoked fish, lentil stew, garlic butter, oat porridge, ginger tea, orange juice, pea soup, sour cabbage,
        plum pudding, vegetable curry, warm toast, chocolate mousse, noodles, oyster sauce, walnut bread, sweet corn
    """),
    "ingredient": _words("""
        flour, sugar, chopped parsley, olive oil, yoghurt, grated ginger, vinegar, thyme, cold water, black pepper,
        honey, melted butter, crushed garlic, brown rice, sliced carrots, white beans, lemon juice, cinnamon
    """),
    "place": _words("""
        the harbour, the railway station, the old mill, the village square, the museum, a narrow valley,
        the swimming pool, the orchard, the town hall, the frozen lake, the bakery on the corner, the airport,
        a quiet side street, the science lab, the football ground, the cathedral, the covered market, our garden,
        the coal mine, the theatre, the top of the hill, the youth hostel, the beach, the far side of the moor,
        the post office, the ruined castle, the north shore, the new bridge, the campsite, the judge's chambers
    """),
    "room": _words("""
        the kitchen, the attic, the cellar, the garage, the hallway, the spare bedroom, the workshop, the library,
        the waiting room, the greenhouse, the changing room, the nursery, the corner office, the music room, the barn
    """),
    "where": _words("""
        under the table, behind the sofa, beside the window, on the top shelf, in the bottom drawer, near the stairs,
        outside the door, above the fireplace, between two books, at the back of the cupboard, inside the tent,
        below the deck, against the wall, among the leaves, beneath the bridge, in the boot of the car, by the fountain,
        on the edge of the path, underneath a pile of washing, next to the oven
    """),
    "city": _words("""
        Oslo, Geneva, Cairo, Lisbon, Toronto, Jakarta, Dublin, Warsaw, Nairobi, Lima, Vienna, Boston, Zagreb, Kyoto,
        Edinburgh, Athens, Hull, Prague, Perth, Chennai, Bruges, Quito, Leeds, Havana, Riga, Auckland, Yerevan, Troyes
    """),
    "weather": _words("""
        heavy rain, thick fog, bright sunshine, light snow, strong wind, a thunderstorm, freezing drizzle, hail,
        a gentle breeze, clear sky, sudden showers, a long dry spell, patchy cloud, a cold front, rolling mist
    """),
    "region": _words("""
        the northern coast, the southern hills, the eastern plain, the islands, the western valleys, the high moors,
        the river delta, the capital, most of the country, the mountain passes, the lake district, the far north
    """),
    "vehicle": _words("""
        train, ferry, lorry, tram, night bus, fishing boat, helicopter, removal van, ambulance, tractor, taxi, barge,
        cargo ship, yellow coach, rescue boat, snow plough, sailing yacht, fire engine, milk float, jeep
    """),
    "adjective": _words("""
        quiet, enormous, narrow, cheerful, ancient, rough, polished, strange, heavy, fragile, shallow, dusty, curious,
        bright, hollow, gloomy, ordinary, crooked, smooth, thirsty, plain, joyful, sharp, vague, wooden, thick, loyal,
        clumsy, generous, peculiar, sour, awkward, moist, worthy, pleasant, foolish, broad, pure, azure, leisurely
    """),
    "feeling": _words("""
        happy, nervous, furious, relieved, puzzled, proud, sleepy, jealous, hopeful, ashamed, bored, amused, anxious,
        grateful, homesick, overjoyed, cautious, thoughtful, annoyed, sure of nothing, utterly calm
    """),
    "adverb": _words("""
        slowly, quietly, cheerfully, carefully, suddenly, gently, proudly, clumsily, patiently, rather loudly, at once,
        without a word, in a hurry, with great care, once again, nervously, smoothly, by mistake, on purpose, awkwardly,
        roughly, all alone, as usual, with both hands, out of pure habit
    """),
    "when": _words("""
        yesterday, last night, this morning, on Thursday, two weeks ago, before sunrise, after lunch, in the evening,
        at noon, during the holidays, last winter, just before midnight, over the weekend, on his birthday,
        in early June, at the end of July, during the storm, the day before yesterday, all afternoon, in the autumn
    """),
    "soon": _words("""
        tomorrow, next week, on Monday, this evening, in a moment, after the concert, before Christmas, in half an hour,
        by Wednesday, at the weekend, next spring, as soon as possible, on the first of March, within the hour, tonight
    """),
    "month": _words("January, February, March, April, May, June, July, August, September, October, November, December"),
    "day": _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "ordinal": _words("""
        first, second, third, fourth, fifth, sixth, seventh, eighth, ninth, tenth, eleventh, twelfth, thirteenth,
        fourteenth, seventeenth, nineteenth, twentieth, twenty first, twenty third, thirtieth
    """),
    "unit": _words(
        "metres, litres, grams, miles, minutes, pages, degrees, hours, pounds, kilometres, inches, teaspoons"
    ),
    "colour": _words("red, azure, yellow, green, orange, purple, beige, black, white, grey, turquoise, brown, scarlet"),
    "subject": _words("""
        geography, music theory, chemistry, the history of shipping, algebra, Japanese, astronomy, law, joinery,
        bird song, measurement, the weather, poetry, engine repair, medieval art, psychology, zoology, bookkeeping
    """),
    "problem": _words("""
        the roof leaks, the battery is flat, the bridge is closed, nobody has the key, the engine makes a strange noise,
        the well has run dry, the printer is out of paper, half of the lights have failed, the path is under water,
        the signal is too weak, someone has lost the list, the hinges are rusty, the measurements do not agree,
        the oven will not heat, the boiler is too old, two of the wheels are loose, the gauge shows zero
    """),
    "plan": _words("""
        paint the fence, visit the museum, learn to juggle, mend the roof, plant an oak tree, cook for everyone,
        catch the early train, climb the tower, sell the piano, write a longer letter, measure the room again,
        walk along the river, study all night, build a raft, clear out the garage, change the locks, join the choir,
        rehearse the last scene, watch the eclipse, search the attic, pay the bill, go through the figures once more
    """),
    "did": _words("""
        carried, repaired, borrowed, painted, dropped, found, measured, wrapped, hid, photographed, sold, polished,
        brought back, examined, described, lost, stole, washed, threw away, chose, kept, weighed, unlocked, sketched
    """),
    "done": _words("""
        carried, repaired, borrowed, painted, dropped, found, measured, wrapped, hidden, photographed, sold, polished,
        brought back, examined, described, lost, stolen, washed, thrown away, chosen, kept, weighed, unlocked, sketched
    """),
    "made": _words("""
        cooked, tasted, served, ordered, refused, shared, spilled, praised, burned, wanted, cooled, stirred, enjoyed
    """),
    "went": _words("""
        walked to, drove to, hurried to, arrived at, came back from, sailed past, waited near, got lost near, jogged to,
        cycled round, took us to, set off for, searched, moved away from, strolled through, looked out over
    """),
    "moved": _words("""
        ran, crept, jumped, wandered, slipped, rushed, flew, staggered, marched, rolled, charged, slid, danced
    """),
    "across": _words("""
        across the road, over the wall, through the long grass, down the stairs, along the shore, round the corner,
        into the shadows, past the church, up the hill, towards the light, out of the cave, beyond the hedge,
        between the parked cars, under the arch
    """),
    "said": _words("said, whispered, replied, shouted, explained, thought, announced, admitted, argued, joked"),
    "opinion": _words("""
        it was worth the trouble, nobody would notice, the choice was wrong, they should have asked first,
        everything had changed, the price was fair, we could trust her, the story was only half true,
        such a voyage needs courage, the third version was the best, there had been too much noise,
        good things take time, this was the usual treatment, no one could measure such pleasure
    """),
    "sound": _words("""
        a low hum, distant thunder, a sharp whistle, the buzz of a saw, church bells, footsteps, a choir, a loud splash,
        the hiss of steam, someone singing, a cough, an engine starting, the creak of a door, waves, a strange echo
    """),
    "body": _words(
        "left shoulder, right thumb, knee, elbow, back, jaw, ankle, wrist, chin, neck, forehead, little finger"
    ),
    "material": _words(
        "oak, copper, wool, cardboard, clay, glass, leather, bamboo, steel, pure silk, foil, rough cloth"
    ),
    "job": _words("""
        a pharmacist, an architect, a plumber, a judge, an usher, a chef, a zoologist, a joiner, a radio host, an actor,
        a youth worker, a geologist, a soil scientist, a train driver, a voice teacher, an illustrator, a surgeon
    """),
    "advice": _words("""
        Check both mirrors, Close the valve, Breathe through your nose, Count to ten, Take the second turning,
        Keep your gloves on, Leave the window open, Ask for a receipt, Push the red button, Lower your voice,
        Hold the rope with both hands, Use the other exit, Charge the battery, Wash your hands, Look over your shoulder
    """),
    "before": _words("""
        before you start the engine, when the light turns green, if you smell gas, until the water boils,
        as soon as the bell rings, unless it rains, while the paint is wet, whenever you feel unsure,
        before anyone else arrives, after each measurement, if nobody answers, once the fog has cleared
    """),
    "reason": _words("""
        because the shops were shut, although it was getting late, since nobody else had offered,
        so that everyone could see, while the others slept, even though the rain had not stopped,
        just as the clock struck, until the last guest had gone, as if nothing had happened, because of a foolish bet,
        for the pure joy of it, though her voice was hoarse, when the music began, after the usual long discussion
    """),
}
